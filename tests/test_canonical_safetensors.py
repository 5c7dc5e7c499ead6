from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import safe_open

from policy.canonical_safetensors import canonical
from tests.tiny_weights import tiny_message

METADATA = {f"key_{number}": f"ä value {number}" for number in range(12)}
TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1.5], np.float32)}


def test_the_same_content_gives_the_same_bytes() -> None:
    saved = [canonical(safetensors.numpy.save(TENSORS, METADATA)) for _ in range(20)]
    assert len(set(saved)) == 1
    assert (len(saved[0]) - sum(tensor.nbytes for tensor in TENSORS.values())) % 8 == 0


def test_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(canonical(safetensors.numpy.save(TENSORS, METADATA)))
    with safe_open(str(path), framework="numpy") as file:
        assert file.metadata() == METADATA
        for name, tensor in TENSORS.items():
            np.testing.assert_array_equal(file.get_tensor(name), tensor)


def test_weights_have_the_same_bytes_in_another_process() -> None:
    code = "import sys\nfrom tests.tiny_weights import tiny_message\nsys.stdout.buffer.write(tiny_message())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout == tiny_message()
