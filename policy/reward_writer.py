"""Puts a reward model on the disk: whole, loadable and with its hashes, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy.model_folder import check_folder_free, write_folder
from policy.reward_manifest import REWARD_MODEL, REWARD_SCHEMA_VERSION, RewardManifest
from policy.reward_model import load_reward_model
from robot.errors import BadInputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_reward_target(folder: Path) -> None:
    """Raise BadInputError when `folder` has no name for it, or would then take the place of something else."""
    if not _NAME.fullmatch(folder.name):
        raise BadInputError(
            f"{folder}: {folder.name!r} is no name for a reward model; use letters, digits, '_', '-' and '.'"
        )
    check_folder_free(REWARD_MODEL, folder)


def write_reward_model(folder: Path, content: Mapping[str, Any], graph: bytes) -> Path:
    """Write manifest fields (without schema version, kind, graph and hashes) and the graph; whole or not at all.

    Also for a model of one's own. An older one in `folder` is replaced.

    Raises:
        BadInputError: what was written is no valid reward model; nothing is left behind.
    """
    check_reward_target(folder)
    made = {**content, "schema_version": REWARD_SCHEMA_VERSION, "kind": "reward_model"}
    return write_folder(
        REWARD_MODEL,
        folder,
        made,
        {"graph": graph},
        model=RewardManifest,
        check=lambda partial: load_reward_model(partial, provider="cpu").warm_up(1),
    )
