from __future__ import annotations

from pathlib import Path

import pytest

from teleop.faulty_disk import FaultyDisk
from teleop.recorder_messages import RecorderFault, fault_body


def test_a_fault_stays_until_it_is_called_off(tmp_path: Path) -> None:
    slept: list[float] = []
    disk = FaultyDisk(lambda folder: 7, slept.append)
    assert disk(tmp_path) == 7
    disk.suffer(RecorderFault.SLOW_DISK, 0.5)
    disk.suffer(RecorderFault.DISK_FULL, 1.0)
    assert [disk(tmp_path), disk(tmp_path)] == [0, 0]
    disk.suffer(RecorderFault.SLOW_DISK, 0.0)
    disk.suffer(RecorderFault.DISK_FULL, 0.0)
    assert disk(tmp_path) == 7
    assert slept == [0.5, 0.5]


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_an_amount_that_is_none_is_refused(amount: float) -> None:
    with pytest.raises(ValueError, match="SLOW_DISK"):
        fault_body(RecorderFault.SLOW_DISK, amount)
