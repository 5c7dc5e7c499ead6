"""Makes the bundle of a policy that runs elsewhere from what a person wrote down about it."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from policy.bundle_writer import check_target, write_bundle
from policy.frozen_encoder import frozen_encoder
from policy.manifest import (
    SCHEMA_VERSION,
    ActionSpec,
    CameraCalibration,
    CameraInput,
    ProprioInput,
    RemoteAct,
)
from policy.model_folder import error_line
from policy.observation_history import HistoryTicks
from robot.errors import BadInputError
from robot.strict import Strict


class RemoteDescription(Strict):
    """What is known of a remote policy, as a TOML file; the manifest's fields of the same names say what they mean.

    Attributes:
        feature_size: of the encoder; 64 does for a residual.
        seed: of the encoder's weights.
    """

    name: str
    version: int = 1
    rate_hz: float
    cameras: tuple[CameraInput, ...]
    proprio: tuple[ProprioInput, ...]
    action: ActionSpec
    chunk_length: int
    execute_steps: int
    feature_size: Annotated[int, Field(ge=8, le=4096)] = 64
    history: HistoryTicks | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    remote: RemoteAct
    calibration: dict[str, CameraCalibration] = Field(default_factory=dict)


def read_description(path: Path) -> RemoteDescription:
    """Read a description. Raises BadInputError, one line, when it is missing or not one."""
    try:
        return RemoteDescription.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror}); name a description") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: is not TOML ({error}); correct that line") from None
    except ValidationError as error:
        raise BadInputError(f"{path}: {error_line(error, 'correct it')}") from None


def write_remote_bundle(folder: Path, description: RemoteDescription, encode: bytes | None = None) -> Path:
    """Write the bundle to `folder` and return it; a bundle there is replaced.

    Args:
        folder: where it goes.
        description: of the policy.
        encode: ONNX file of an encoder; a small frozen one of ours where none is given.

    Raises:
        BadInputError: the folder holds something else, the description makes no manifest, or the encoder does not fit.
    """
    check_target(folder)
    proprio_size = sum(entry.size for entry in description.proprio)
    own = encode is None
    if encode is None:
        encode = frozen_encoder(
            description.cameras,
            proprio_size=proprio_size,
            feature_size=description.feature_size,
            seed=description.seed,
        )
    content: dict[str, Any] = description.model_dump(mode="json", exclude={"seed"})
    content |= {
        "schema_version": SCHEMA_VERSION,
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "training": {"encoder": f"frozen, seed {description.seed}" if own else "given"},
    }
    return write_bundle(folder, content, {"encode": encode})
