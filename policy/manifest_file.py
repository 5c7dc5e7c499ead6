"""Reads a bundle's manifest.json, with one line for whatever is wrong in it."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from policy.manifest import SCHEMA_VERSION, Manifest, content_hash
from robot.errors import BadInputError

MANIFEST_FILE = "manifest.json"
_MAX_BYTES = 1 << 20


def read_manifest(folder: Path) -> tuple[Manifest, bytes]:
    """Return the checked manifest of a bundle's folder and its bytes; the graphs are not looked at.

    Raises:
        BadInputError: one line naming the key that is wrong.
    """
    where = f"bundle {folder}"
    path = folder / MANIFEST_FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{where}: cannot read {MANIFEST_FILE} ({error.strerror}); give the folder that export_policy.py wrote"
        ) from error
    if len(raw) > _MAX_BYTES:
        raise BadInputError(f"{where}: {MANIFEST_FILE} has {len(raw)} bytes (at most {_MAX_BYTES})")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{where}: {MANIFEST_FILE} is not JSON ({error}); export the policy again") from error
    if not isinstance(content, dict):
        raise BadInputError(f"{where}: {MANIFEST_FILE} must be an object; export the policy again")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BadInputError(
            f"{where}: schema_version is {version!r} (this software reads {SCHEMA_VERSION}); export the policy again"
        )
    try:
        manifest = Manifest.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise BadInputError(f"{where}: {MANIFEST_FILE}: {error_line(error)}") from error
    computed = content_hash(content)
    if computed != manifest.content_sha256:
        raise BadInputError(
            f"{where}: {MANIFEST_FILE} was changed after export (content_sha256 is "
            f"{manifest.content_sha256[:12]}, its content has {computed[:12]}); export the policy again"
        )
    unknown = sorted(manifest.calibration.keys() - {camera.name for camera in manifest.cameras})
    if unknown:
        raise BadInputError(
            f"{where}: {MANIFEST_FILE}: key 'calibration' names camera '{unknown[0]}', which 'cameras' does not; "
            "export the policy again"
        )
    return manifest, raw


def error_line(error: ValidationError) -> str:
    """Say the first thing that pydantic found, with its key, in one line."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "manifest"
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'; remove it or export the policy again"
    if first["type"] == "missing":
        return f"key '{key}' is missing; export the policy again"
    got = repr(first["input"])
    got = got if len(got) <= 60 else got[:57] + "..."
    message = " ".join(first["msg"].split())
    return f"key '{key}' is {got}: {message}; export the policy again"
