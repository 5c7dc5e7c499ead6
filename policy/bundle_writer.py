"""Puts a bundle on the disk: whole, loadable and with its hashes, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from policy.bundle import load_bundle
from policy.manifest import Manifest, content_hash
from policy.manifest_file import MANIFEST_FILE, error_line
from robot.errors import BadInputError


def check_target(folder: Path) -> None:
    """Raise BadInputError when a bundle written to `folder` would take the place of something else."""
    if folder.exists() and not (folder / MANIFEST_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInputError(f"{folder}: holds something else than a bundle; name a new or an empty folder")


def write_bundle(folder: Path, content: Mapping[str, Any], graphs: Mapping[str, bytes]) -> Path:
    """Write manifest fields (without hashes) and the graphs `encode` and, unless remote, `act`; whole or not at all.

    Raises:
        BadInputError: what was written is no valid bundle; nothing is left behind.
    """
    manifest = dict(content)
    for entry, model in graphs.items():
        manifest[entry] = {"file": f"{entry}.onnx", "sha256": hashlib.sha256(model).hexdigest()}
    # the hash is over the JSON as pydantic would read it back, so that 20 and 20.0 are one number
    try:
        draft = Manifest.model_validate_json(json.dumps({**manifest, "content_sha256": "0" * 64}), strict=True)
    except ValidationError as error:
        raise BadInputError(f"bundle {folder}: {error_line(error)}") from error
    manifest = draft.model_dump(mode="json", exclude_none=True)
    manifest["content_sha256"] = content_hash(manifest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for entry, model in graphs.items():
            _write(partial / f"{entry}.onnx", model)
        _write(partial / MANIFEST_FILE, (json.dumps(manifest, indent=1) + "\n").encode())
        load_bundle(partial, provider="cpu").warm_up(1)
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
