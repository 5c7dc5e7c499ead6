"""Puts a bundle on the disk: whole, loadable and with its hashes, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy.bundle import load_bundle
from policy.manifest import Manifest
from policy.manifest_file import BUNDLE
from policy.model_folder import check_folder_free, write_folder


def check_target(folder: Path) -> None:
    """Raise BadInputError when a bundle written to `folder` would take the place of something else."""
    check_folder_free(BUNDLE, folder)


def write_bundle(folder: Path, content: Mapping[str, Any], graphs: Mapping[str, bytes]) -> Path:
    """Write manifest fields (without hashes) and the graphs `encode` and, unless remote, `act`; whole or not at all.

    Raises:
        BadInputError: what was written is no valid bundle; nothing is left behind.
    """
    return write_folder(
        BUNDLE, folder, content, graphs, model=Manifest, check=lambda made: load_bundle(made, provider="cpu").warm_up(1)
    )
