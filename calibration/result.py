"""What a calibration leaves: a dated JSON file with a hash of what it says, which stations point to.

A run keeps the file's bytes and each episode the SHA-256 of those bytes; the hash inside finds a file that was edited.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from perception.calibration_file import HASH_KEY as _HASH
from perception.calibration_file import content_hash, read_document, wrong_key
from robot.errors import BadInputError
from robot.strict import Strict
from robot.whole_file import write_whole

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CalibrationResult(Strict):
    """What every calibration file holds; each kind of calibration adds its own.

    Attributes:
        kind: what was calibrated; each subclass fixes it to one word.
        created_utc: ISO 8601.
        inputs: name -> SHA-256 of each file that it was made from.
        content_sha256: of all the rest, see `content_hash`.
    """

    schema_version: Annotated[int, Field(ge=1, le=1)] = 1
    kind: str
    created_utc: str
    inputs: dict[str, Sha256]
    content_sha256: Sha256


Result = TypeVar("Result", bound=CalibrationResult)


def sealed(kind: type[Result], values: dict[str, Any]) -> Result:
    """Return a result made now from its other values, with its date and its hash."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    draft = kind.model_validate({"created_utc": now, **values, _HASH: "0" * 64})
    return draft.model_copy(update={_HASH: content_hash(document(draft))})


def document(result: CalibrationResult) -> dict[str, Any]:
    """Return a result as JSON values; what is absent is left out."""
    return result.model_dump(mode="json", exclude_none=True)


def write_result(path: Path, result: CalibrationResult) -> str:
    """Write a result, whole or not at all, and return the SHA-256 of the file.

    Raises:
        BadInputError: it cannot be written.
    """
    data = (json.dumps(document(result), indent=2, allow_nan=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise BadInputError(
            f"calibration {path}: cannot be written ({error.strerror}); check rights and space"
        ) from None
    return hashlib.sha256(data).hexdigest()


def read_result(path: Path, kind: type[Result]) -> tuple[Result, bytes]:
    """Return a checked calibration and the file's bytes, for a run to keep.

    Raises:
        BadInputError: no such file, not this kind of calibration, a key that is wrong, or edited since it was made.
    """
    loaded, data = read_document(path)
    try:
        result = kind.model_validate(loaded)
    except ValidationError as error:
        raise wrong_key(path, error) from None
    if content_hash(document(result)) != result.content_sha256:
        raise BadInputError(f"calibration {path}: was changed after it was made ({_HASH} differs); calibrate again")
    return result, data
