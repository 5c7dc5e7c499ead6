"""Puts a reward model on the disk: whole, loadable and with its hashes, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from policy.manifest import content_hash
from policy.manifest_file import error_line
from policy.reward_manifest import REWARD_MANIFEST_FILE, REWARD_SCHEMA_VERSION, RewardManifest, in_our_words
from policy.reward_model import load_reward_model
from robot.errors import BadInputError

_GRAPH = "reward.onnx"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_reward_target(folder: Path) -> None:
    """Raise BadInputError when `folder` has no name for it, or would then take the place of something else."""
    if not _NAME.fullmatch(folder.name):
        raise BadInputError(
            f"{folder}: {folder.name!r} is no name for a reward model; use letters, digits, '_', '-' and '.'"
        )
    is_one = (folder / REWARD_MANIFEST_FILE).is_file()
    if folder.exists() and not is_one and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInputError(f"{folder}: holds something else than a reward model; name a new or an empty folder")


def write_reward_model(folder: Path, content: Mapping[str, Any], graph: bytes) -> Path:
    """Write manifest fields (without schema version, kind, graph and hashes) and the graph; whole or not at all.

    Also for a model of one's own. An older one in `folder` is replaced.

    Raises:
        BadInputError: what was written is no valid reward model; nothing is left behind.
    """
    check_reward_target(folder)
    manifest = {
        **content,
        "schema_version": REWARD_SCHEMA_VERSION,
        "kind": "reward_model",
        "graph": {"file": _GRAPH, "sha256": hashlib.sha256(graph).hexdigest()},
    }
    # the hash is over the JSON as pydantic would read it back, so that 20 and 20.0 are one number
    try:
        draft = RewardManifest.model_validate_json(json.dumps({**manifest, "content_sha256": "0" * 64}), strict=True)
    except ValidationError as error:
        raise BadInputError(in_our_words(f"reward model {folder}: {error_line(error)}")) from None
    manifest = draft.model_dump(mode="json", exclude_none=True)
    manifest["content_sha256"] = content_hash(manifest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _write(partial / _GRAPH, graph)
        _write(partial / REWARD_MANIFEST_FILE, (json.dumps(manifest, indent=1) + "\n").encode())
        load_reward_model(partial, provider="cpu").warm_up(1)
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
