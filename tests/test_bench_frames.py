"""A camera that dies in the benchmark of frames ends it, and keeps nobody waiting."""

from __future__ import annotations

import pytest

from benchmarks.bench_frames import measure
from benchmarks.frame_transport import Ours, Publish


class Dying(Ours):
    """One camera's process ends as soon as it has begun."""

    def publisher(self, camera: int) -> Publish:
        if camera == 1:
            raise SystemExit(3)
        return super().publisher(camera)


@pytest.mark.parametrize("rate_hz", [30.0, None])
def test_a_camera_that_dies_ends_the_measurement(rate_hz: float | None) -> None:
    with pytest.raises(RuntimeError, match="camera 1 ended with status 3"):
        measure(Dying, 2, rate_hz, 60.0)
