"""Results on disk: kind, date, content and a hash over all of it, so that an episode can say what it was made with."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from robot.errors import BadInputError
from robot.strict import Strict

Content = TypeVar("Content", bound=BaseModel)


class DatedFile(Strict):
    """What stands round a result.

    Attributes:
        kind: what was calibrated.
        made_utc: when, ISO 8601 with the zone.
        sha256: of the canonical JSON of kind, made_utc and content.
        content: the result itself.
    """

    kind: str
    made_utc: str
    sha256: str
    content: dict[str, Any]


def write_dated(path: Path, kind: str, content: BaseModel, *, now: datetime | None = None) -> DatedFile:
    """Write a result, whole or not at all. Raises BadInputError where it cannot be written."""
    made_utc = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    plain = json.loads(content.model_dump_json())
    whole = DatedFile(kind=kind, made_utc=made_utc, sha256=_hash(kind, made_utc, plain), content=plain)
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with making.open("w") as stream:
            stream.write(json.dumps(whole.model_dump(), indent=2) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        making.replace(path)
    except OSError as error:
        making.unlink(missing_ok=True)
        raise BadInputError(f"{path}: cannot be written ({error.strerror}); name another file") from None
    return whole


def read_dated(path: Path, kind: str, model: type[Content]) -> tuple[Content, DatedFile]:
    """Read a result and what stands round it.

    Raises:
        BadInputError: there is no such file, it is another kind, or it was changed after it was made.
    """
    cure = f"make it with launch/calibrate_rig.py {kind}"
    try:
        whole = DatedFile.model_validate(json.loads(path.read_text()))
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file; {cure}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInputError(f"{path}: cannot be read as JSON ({error}); {cure}") from None
    except ValidationError:
        raise BadInputError(f"{path}: is no result of a calibration; {cure}") from None
    if whole.kind != kind:
        raise BadInputError(f"{path}: holds {whole.kind}, not {kind}; {cure}")
    if whole.sha256 != _hash(whole.kind, whole.made_utc, whole.content):
        raise BadInputError(f"{path}: was changed after it was made (its hash differs); {cure}")
    try:
        return model.model_validate_json(json.dumps(whole.content)), whole
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInputError(f"{path}: {where}: {first['msg']}; {cure}") from None


def _hash(kind: str, made_utc: str, content: dict[str, Any]) -> str:
    text = json.dumps({"kind": kind, "made_utc": made_utc, "content": content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
