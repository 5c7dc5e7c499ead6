"""Puts a bundle on the disk: whole, loadable and with its hashes, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy.bundle import load_bundle
from policy.golden import golden_chunk
from policy.manifest import Manifest
from policy.manifest_file import BUNDLE
from policy.model_folder import check_folder_free, write_folder
from robot.errors import BadInputError


def check_target(folder: Path) -> None:
    """Raise BadInputError when a bundle written to `folder` would take the place of something else."""
    check_folder_free(BUNDLE, folder)


def write_bundle(folder: Path, content: Mapping[str, Any], graphs: Mapping[str, bytes]) -> Path:
    """Write manifest fields (without hashes) and the graphs `encode` and, unless remote, `act`; whole or not at all.

    The manifest also gets the golden chunk, unless the policy is remote.

    Raises:
        BadInputError: what was written is no valid bundle; nothing is left behind.
    """
    check_target(folder)
    if "act" in graphs:
        content = {key: value for key, value in content.items() if key != "golden_chunk"}
        with tempfile.TemporaryDirectory() as aside:
            try:
                draft = _write(Path(aside) / folder.name, content, graphs)
            except BadInputError as error:  # the person knows the folder that they named
                raise BadInputError(str(error).replace(aside, str(folder.parent))) from None
            content["golden_chunk"] = golden_chunk(load_bundle(draft, provider="cpu"))
    return _write(folder, content, graphs)


def _write(folder: Path, content: Mapping[str, Any], graphs: Mapping[str, bytes]) -> Path:
    return write_folder(
        BUNDLE, folder, content, graphs, model=Manifest, check=lambda made: load_bundle(made, provider="cpu").warm_up(1)
    )
