"""Reads a bundle's manifest.json, with one line for whatever is wrong in it."""

from __future__ import annotations

from pathlib import Path

from policy.manifest import SCHEMA_VERSION, Manifest
from policy.model_folder import FolderKind, read_manifest_of
from robot.errors import BadInputError

MANIFEST_FILE = "manifest.json"
BUNDLE = FolderKind(
    what="bundle",
    file=MANIFEST_FILE,
    schema_version=SCHEMA_VERSION,
    script="export_policy.py",
    again="export the policy again",
    verb="export",
)


def read_manifest(folder: Path) -> tuple[Manifest, bytes]:
    """Return the checked manifest of a bundle's folder and its bytes; the graphs are not looked at.

    Raises:
        BadInputError: one line naming the key that is wrong.
    """
    manifest, raw = read_manifest_of(BUNDLE, folder, Manifest)
    unknown = sorted(manifest.calibration.keys() - {camera.name for camera in manifest.cameras})
    if unknown:
        raise BadInputError(
            f"{BUNDLE.where(folder)}: {MANIFEST_FILE}: key 'calibration' names camera '{unknown[0]}', which 'cameras' "
            f"does not; {BUNDLE.again}"
        )
    return manifest, raw
