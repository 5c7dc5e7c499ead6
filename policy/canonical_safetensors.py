"""Safetensors bytes that depend on their content alone."""

from __future__ import annotations

import json
import struct

_ALIGNMENT = 8


def canonical(message: bytes) -> bytes:
    """Return the same safetensors message with its metadata in the order of their names.

    The library writes metadata in the order of a hash map that is seeded anew each time, so that two saves of the
    same content differ, and with them every SHA-256 over the file.
    """
    (size,) = struct.unpack_from("<Q", message)
    header = json.loads(message[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    ordered = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text + message[8 + size :]
