"""Arrays that every process lays out alike, as bit-exact replay needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT_BYTES = 64


def aligned(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a read-only copy on a fixed alignment, so that BLAS takes the same path in every process."""
    raw = np.empty(array.nbytes + _ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT_BYTES
    copy: NDArray[np.float32] = raw[start : start + array.nbytes].view(np.float32).reshape(array.shape)
    copy[...] = array
    copy.setflags(write=False)
    return copy
