"""A folder of a manifest and of the ONNX graphs that it names by their hashes: policies and reward models alike."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from policy.manifest import EntryPoint, content_hash
from robot.errors import BadInputError
from robot.strict import Strict

_MAX_BYTES = 1 << 20

ManifestT = TypeVar("ManifestT", bound=Strict)


@dataclass(frozen=True, kw_only=True)
class FolderKind:
    """One kind of such folders, and the words for it.

    Attributes:
        what: it is called.
        file: name of its manifest.
        schema_version: that this software reads.
        script: that writes one.
        again: what to do about a bad one, "export the policy again".
        verb: of that.
    """

    what: str
    file: str
    schema_version: int
    script: str
    again: str
    verb: str

    def where(self, folder: Path) -> str:
        """Return how `folder` is named in messages."""
        return f"{self.what} {folder}"


def read_manifest_of(kind: FolderKind, folder: Path, model: type[ManifestT]) -> tuple[ManifestT, bytes]:
    """Return the checked manifest in `folder` and its bytes; the graphs are not looked at.

    Raises:
        BadInputError: one line naming the key that is wrong.
    """
    where, file, again = kind.where(folder), kind.file, kind.again
    try:
        raw = (folder / file).read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{where}: cannot read {file} ({error.strerror}); give the folder that {kind.script} wrote"
        ) from None
    if len(raw) > _MAX_BYTES:
        raise BadInputError(f"{where}: {file} has {len(raw)} bytes (at most {_MAX_BYTES})")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{where}: {file} is not JSON ({error}); {again}") from None
    if not isinstance(content, dict):
        raise BadInputError(f"{where}: {file} must be an object; {again}")
    version = content.get("schema_version")
    if version != kind.schema_version or isinstance(version, bool):
        raise BadInputError(
            f"{where}: schema_version is {version!r} (this software reads {kind.schema_version}); {again}"
        )
    try:
        manifest = model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise BadInputError(f"{where}: {file}: {error_line(error, again)}") from None
    stated, computed = str(content.get("content_sha256")), content_hash(content)
    if computed != stated:
        raise BadInputError(
            f"{where}: {file} was changed after export (content_sha256 is {stated[:12]}, its content has "
            f"{computed[:12]}); {again}"
        )
    return manifest, raw


def read_graph(kind: FolderKind, folder: Path, entry: EntryPoint) -> bytes:
    """Return the bytes of a graph. Raises BadInputError when it is missing or not what the manifest says."""
    try:
        model = (folder / entry.file).read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{kind.where(folder)}: cannot read {entry.file} ({error.strerror}); copy the whole folder again"
        ) from None
    got = hashlib.sha256(model).hexdigest()
    if got != entry.sha256:
        raise BadInputError(
            f"{kind.where(folder)}: {entry.file} was changed or damaged (SHA-256 is {got[:12]}, the manifest says "
            f"{entry.sha256[:12]}); copy the {kind.what} again or {kind.verb} it again"
        )
    return model


def check_folder_free(kind: FolderKind, folder: Path) -> None:
    """Raise BadInputError when one written to `folder` would take the place of something else."""
    if folder.exists() and not (folder / kind.file).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInputError(f"{folder}: holds something else than a {kind.what}; name a new or an empty folder")


def write_folder(
    kind: FolderKind,
    folder: Path,
    content: Mapping[str, Any],
    graphs: Mapping[str, bytes],
    *,
    model: type[Strict],
    check: Callable[[Path], object],
) -> Path:
    """Write a manifest and its graphs, in place of an older one; whole or not at all.

    Args:
        kind: of the folder.
        folder: where it goes.
        content: of the manifest, without graphs and hashes.
        graphs: by their key in the manifest; KEY.onnx is the file's name.
        model: of the manifest.
        check: loads what was written; raises BadInputError when that is not usable.

    Raises:
        BadInputError: what was written is none; nothing is left behind.
    """
    manifest = dict(content)
    for entry, graph in graphs.items():
        manifest[entry] = {"file": f"{entry}.onnx", "sha256": hashlib.sha256(graph).hexdigest()}
    # the hash is over the JSON as pydantic would read it back, so that 20 and 20.0 are one number
    try:
        draft = model.model_validate_json(json.dumps({**manifest, "content_sha256": "0" * 64}), strict=True)
    except ValidationError as error:
        raise BadInputError(f"{kind.where(folder)}: {error_line(error, kind.again)}") from None
    manifest = draft.model_dump(mode="json", exclude_none=True)
    manifest["content_sha256"] = content_hash(manifest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, replaced = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("partial", "replaced"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for entry, graph in graphs.items():
            _write(partial / f"{entry}.onnx", graph)
        _write(partial / kind.file, (json.dumps(manifest, indent=1) + "\n").encode())
        check(partial)
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def error_line(error: ValidationError, cure: str) -> str:
    """Say the first thing that pydantic found, with its key and the cure, in one line."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "manifest"
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'; remove it or {cure}"
    if first["type"] == "missing":
        return f"key '{key}' is missing; {cure}"
    got = repr(first["input"])
    got = got if len(got) <= 60 else got[:57] + "..."
    message = " ".join(first["msg"].split())
    return f"key '{key}' is {got}: {message}; {cure}"


def listed(names: Iterable[str]) -> str:
    """Return names for a message."""
    return ", ".join(f"'{name}'" for name in names) or "none"


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
