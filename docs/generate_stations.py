"""Writes the tables of docs/stations.md from the models that read a station file.

    .venv/bin/python docs/generate_stations.py            # after a key of a station or its words have changed
    .venv/bin/python docs/generate_stations.py --check    # exit code 1 when the page is not what this writes

What stands above the marker in the page is written by hand and stays. A key's range and default are the model's. Its
words are those under `Attributes:` in the model's docstring, or in that of a model that it extends; else those of its
prose that name the key; a section without words gets its own first line. Its unit stands in its name, or in brackets
at the end of its words. A key without words is an error.
"""

from __future__ import annotations

import argparse
import inspect
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import BaseModel, TypeAdapter

from policy.baseline_config import ResfitConfig, RlpdConfig
from policy.learner_config import LearnerConfig
from policy.learner_method import read_method
from policy.learner_settings import Method
from robot.errors import BadInputError
from teleop.station import Station

PAGE = Path(__file__).parent / "stations.md"
MARKER = "<!-- From here on written by docs/generate_stations.py. -->\n"
METHODS: dict[Method, type] = {"handrail": LearnerConfig, "resfit": ResfitConfig, "rlpd": RlpdConfig}
FROM_RESIDUAL = ("scale", "gate", "gripper", "binary")  # fields of a method that a station says in [residual]
# ends of names; the longest one that fits counts
UNITS = {
    "_m": "m", "_mm": "mm", "_m_s": "m/s", "_m_s2": "m/s^2", "_rad": "rad", "_rad_s": "rad/s", "_rad_s2": "rad/s^2",
    "_deg": "degrees", "_px": "px", "_s": "s", "_us": "us", "_days": "days", "_hz": "Hz", "_ticks": "ticks", "_n": "N",
    "_nm": "Nm", "_nm_rad": "Nm/rad", "_kg": "kg", "_kg_m2": "kg m^2", "_k": "K", "_ppm": "ppm",
    "_share": "share",
}  # fmt: skip
_ENTRY = re.compile(r"(\w+(?:, \w+)*): (.*)", re.DOTALL)
_NAMED_UNIT = re.compile(rf" \[({'|'.join(re.escape(unit) for unit in UNITS.values())})\](?=[.:;]|$)")

Schema = Mapping[str, Any]


def page(head: str) -> str:
    """Return the whole page under a hand-written `head`. Raises BadInputError when a key has no words."""
    parts = ["## The top of the file\n", *section(Station, linked=True)]
    seen: dict[type, str] = {}
    for name, field in Station.model_fields.items():
        if models := list(_models(field.annotation)):
            if len(models) > 1:
                parts.append(f"## {name}\n")
            parts += _sections(models, name, 3 if len(models) > 1 else 2, seen)
    parts.append("## Fields of learner.algorithm\n")
    parts.append(
        "`[learner.algorithm]` takes those of the station's `learner.method`. What `[residual]` says, "
        f"{', '.join(f'`{key}`' for key in FROM_RESIDUAL)}, is not said again.\n"
    )
    for method, config in METHODS.items():
        parts += [f"### Method {method}\n", *section(config, without=FROM_RESIDUAL)]
    parts += ["### Method hg_dagger\n", _hg_dagger()]
    return "\n".join([head.rstrip("\n") + "\n", MARKER, *parts])


def head_of(text: str) -> str:
    """Return what stands above the marker. Raises BadInputError without one."""
    head, marker, _ = text.partition(MARKER)
    if not marker:
        raise BadInputError(f"{PAGE}: the line {MARKER.strip()!r} is missing; put it below what is written by hand")
    return head


def anchor(title: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def words_of(model: type) -> tuple[list[str], dict[str, str]]:
    """Return the paragraphs about a model as a whole, and the words of each of its keys that has any."""
    about = inspect.cleandoc(model.__dict__.get("__doc__") or "")
    prose, _, _ = about.partition("\nAttributes:\n")
    entries: dict[str, str] = {}
    for ancestor in reversed(model.__mro__):
        if ancestor in BaseModel.__mro__:
            continue
        _, _, listed = inspect.cleandoc(ancestor.__dict__.get("__doc__") or "").partition("\nAttributes:\n")
        for entry in re.split(r"\n(?=    \w)", "\n" + listed.rstrip())[1:]:
            if match := _ENTRY.fullmatch(entry.strip()):
                entries |= dict.fromkeys(match[1].split(", "), _line(match[2]))
    for sentence in re.split(r"(?<=\.)\s+(?=[A-Z`])", _line(prose)):
        for key in re.findall(r"`(\w+)`", sentence):
            entries.setdefault(key, sentence)
    return [_line(paragraph) for paragraph in prose.strip().split("\n\n")], entries


def _sections(
    models: Sequence[type[BaseModel]], path: str, level: int, seen: dict[type, str], of: str = ""
) -> Iterator[str]:
    """One section for each of the models that may stand at `path`, and below it those of its own keys.

    Args:
        models: one, or the kinds of a union.
        path: dotted key.
        level: of the heading.
        seen: heading of each model that has a section, which is then only pointed to.
        of: kind of the table that `path` is part of.
    """
    for model in models:
        kind = _kind(model) if len(models) > 1 else ""
        title = f"{path}{f': {kind}' if kind else ''}{f' (of {of})' if of else ''}"
        yield f"{'#' * min(level, 6)} {title}\n"
        if model in seen:
            yield f"The same keys as [{seen[model]}](#{anchor(seen[model])}).\n"
            continue
        seen[model] = title
        yield from section(model)
        for name, field in model.model_fields.items():
            if inner := list(_models(field.annotation)):
                named = ".NAME" if "patternProperties" in _schema(model)["properties"][name] else ""
                yield from _sections(inner, f"{path}.{name}{named}", level + 1, seen, kind or of)


def _hg_dagger() -> str:
    ours, theirs = (asdict(read_method(name, {"scale": [1.0]}, "")) for name in ("handrail", "hg_dagger"))
    other = [f"`{key} = {_toml(value).strip('`')}`" for key, value in theirs.items() if value != ours[key]]
    return f"The fields of [handrail](#{anchor('Method handrail')}), of which it begins with {', '.join(other)}.\n"


def section(model: type, *, without: Sequence[str] = (), linked: bool = False) -> Iterator[str]:
    """What a model is about, and the table of its keys but for `without`; `linked` where tables are chapters."""
    prose, words = words_of(model)
    schema = _schema(model)
    yield from (f"{paragraph}\n" for paragraph in prose)
    rows = ["| key | unit | allowed | default | meaning |", "|---|---|---|---|---|"]
    for key, value in sorted(schema["properties"].items(), key=lambda pair: pair[0] != "kind"):
        if key in without:
            continue
        said, unit = _said(model, key, words), _unit(key)
        if match := _NAMED_UNIT.search(said):
            said = said.replace(match[0], "", 1)
            if unit and unit != match[1]:
                raise BadInputError(f"{model.__name__}.{key}: its words say [{match[1]}], its name {unit}; correct one")
            unit = match[1]
        default = "**required**" if key in schema.get("required", ()) else _default(value)
        allowed = _allowed(value, schema)
        if linked:
            allowed = re.sub(r"\btable\b", f"[table](#{anchor(key)})", allowed)
        cells = (f"`{key}`", unit, allowed, default, said.rstrip("."))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    yield "\n".join(rows) + "\n"


def _said(model: type, key: str, words: Mapping[str, str]) -> str:
    """Words of a key."""
    if key in words:
        return words[key]
    field = cast(Mapping[str, Any], getattr(model, "model_fields", {})).get(key)
    if key in ("kind", "mode") and field is not None and len(get_args(field.annotation)) == 1:
        return "says that it is this kind"
    inner = [] if field is None else list(_models(field.annotation))
    if len(inner) == 1:
        return words_of(inner[0])[0][0].rstrip(".")
    if inner:
        return "one of the kinds below"
    raise BadInputError(f"{model.__module__}.{model.__name__}.{key}: has no words; say it under Attributes: there")


def _schema(model: type) -> Schema:
    return TypeAdapter[Any](model).json_schema()


def _kind(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["kind"].annotation)[0])


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model that an annotation names, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _models(part)


def _unit(key: str) -> str:
    ends = [end for end in UNITS if key.endswith(end)]
    return UNITS[max(ends, key=len)] if ends else ""


def _default(value: Schema) -> str:
    if "default" not in value or value["default"] is None:
        return "left out"
    if isinstance(value["default"], dict):
        return "its defaults"
    return _toml(value["default"])


def _allowed(value: Schema, schema: Schema) -> str:
    """Type and range of a value in words."""
    if "$ref" in value:
        value = schema["$defs"][value["$ref"].rsplit("/", 1)[-1]]
    if "const" in value:
        return _toml(value["const"])
    if "enum" in value:
        return ", ".join(_toml(choice) for choice in value["enum"])
    if "oneOf" in value:
        return "table"
    if "anyOf" in value:
        return " or ".join(_allowed(one, schema) for one in value["anyOf"] if one.get("type") != "null")
    match value.get("type"):
        case "integer" | "number" as kind:
            return ", ".join(filter(None, ("whole number" if kind == "integer" else "number", _range(value))))
        case "string":
            return _text(value)
        case "boolean":
            return "`true`, `false`"
        case "array":
            return _list(value, schema)
        case "object":
            return "table"
        case _:
            return "anything"


def _list(value: Schema, schema: Schema) -> str:
    items = value.get("prefixItems") or [value["items"]]
    kinds = list(dict.fromkeys(_allowed(item, schema) for item in items))
    least, most = value.get("minItems", 0), value.get("maxItems")
    count = (
        str(least) if least == most else f"{least} to {most}" if most else f"{least} or more" if least else "any number"
    )
    return f"list of {count}: {'; '.join(kinds)}"


def _text(value: Schema) -> str:
    if "pattern" in value:
        return f"text like `{value['pattern']}`"
    least, most = value.get("minLength", 0), value.get("maxLength")
    if most:
        return f"text of {least} to {most} characters"
    return "text, not empty" if least else "text"


def _range(value: Schema) -> str:
    above, least = value.get("exclusiveMinimum"), value.get("minimum")
    below, most = value.get("exclusiveMaximum"), value.get("maximum")
    low = f"over {_number(above)}" if above is not None else "" if least is None else _number(least)
    high = f"under {_number(below)}" if below is not None else "" if most is None else _number(most)
    if low and high:
        return f"{low} to {high}"
    if low:
        return low if above is not None else f"{low} or more"
    return high and (high if below is not None else f"{high} or less")


def _number(number: float) -> str:
    """A number as a person writes it; halves of pi by name, as no short number is exact."""
    halves = number / (math.pi / 2)
    if halves and halves == round(halves):
        return {-2: "-pi", -1: "-pi/2", 1: "pi/2", 2: "pi"}.get(round(halves), f"{halves / 2:g} pi")
    if number == round(number) and abs(number) < 1e12:
        return str(round(number))
    return f"{number:.6g}"


def _toml(value: Any) -> str:
    """A value as it is written in a station file."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, (list, tuple)):
        return f"`[{', '.join(_toml(item).strip('`') for item in value)}]`"
    return f"`{value:.6g}`" if isinstance(value, float) else f"`{value}`"


def _line(text: str) -> str:
    return " ".join(text.split())


def main() -> int:
    """Write the page, or look whether it is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 when the page is stale")
    options = parser.parse_args()
    try:
        there = PAGE.read_text()
        wanted = page(head_of(there))
    except BadInputError as error:
        print(f"generate_stations.py: {error}", file=sys.stderr)
        return 2
    if options.check:
        print(f"{PAGE.name} is {'right' if there == wanted else 'stale; run docs/generate_stations.py'}")
        return 0 if there == wanted else 1
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
