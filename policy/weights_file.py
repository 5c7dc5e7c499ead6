"""Weights messages as files: from a run's folder or a learner's, checked against the base policy before use."""

from __future__ import annotations

from pathlib import Path

from policy.manifest import Manifest
from policy.run_folder import RunFolder
from policy.weights import Expected, ResidualLimits, ResidualWeights, WeightsRefused, unpack
from robot.errors import BadInputError


def read_weights(path: Path, manifest: Manifest, limits: ResidualLimits | None) -> tuple[bytes, ResidualWeights]:
    """Return the message in a file and what is in it.

    Args:
        path: the file.
        manifest: of the base policy that it must have been made for.
        limits: what the station allows; None for a residual of zero only.

    Raises:
        BadInputError: it cannot be read or is refused, or the limits are not one bound per action dimension.
    """
    try:
        message = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"weights {path}: cannot be read ({error.strerror}); name a weights file") from None
    if limits is not None and len(limits.scale) != manifest.action.size:
        raise BadInputError(
            f"station: residual.scale has {len(limits.scale)} values, its bundle's action {manifest.action.size}; "
            "give one for each"
        )
    try:
        return message, unpack(message, Expected.of(manifest, limits))
    except WeightsRefused as refusal:
        raise BadInputError(f"weights {path}: {str(refusal).removeprefix('weights ')}; name others") from None


def weights_of_version(run: Path, version: int) -> Path:
    """Return the file of the weights that a run had under `version`. Raises BadInputError unless there is just one."""
    folder = RunFolder.open(run).path / "weights"
    files = sorted(folder.glob(f"{version:08d}-*"))
    if len(files) != 1:
        there = sorted(int(path.name.partition("-")[0]) for path in folder.glob("[0-9]*-*"))
        told = ", ".join(map(str, there[-12:])) or "none"
        raise BadInputError(
            f"run {run}: has {len(files)} weights of version {version} (there are: {told}); name one, or a file"
        )
    return files[0]


def final_weights(run: Path) -> Path:
    """Return the file of the weights that a run ended with: those that stayed, else the highest version.

    Raises BadInputError when there is none.
    """
    stayed = run / "weights.safetensors"
    if stayed.exists():
        return stayed
    files = sorted((RunFolder.open(run).path / "weights").glob("[0-9]*-*"))
    if not files:
        raise BadInputError(f"run {run}: has no weights; name a run that had a learner, or a file with --weights")
    return files[-1]
