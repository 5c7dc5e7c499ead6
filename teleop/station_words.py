"""What a person wrote in a station file, as TOML gives it: overrides go in, and what is wrong in it is one line."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from robot.errors import BadInputError

_TAGS = (  # of unions, which pydantic puts into the place of an error
    "simulated", "pattern", "realsense", "uvc", "playback", "recorded", "gymnasium", "franka",
    "place", "insert", "tcp_delta", "actuation",
)  # fmt: skip


def override(data: dict[str, Any], dotted: str, text: str) -> None:
    """Set `dotted` in `data`; list items by index or, for cameras, by name."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    *parents, last = dotted.split(".")
    here: Any = data
    for part in parents:
        if isinstance(here, list):
            here = _item(here, part, dotted)
        else:
            here = here.setdefault(part, {})
        if not isinstance(here, (dict, list)):
            raise BadInputError(f"--{dotted}: {part!r} is a value, not a section of the station; check the key")
    if isinstance(here, list):
        raise BadInputError(f"--{dotted}: names a list item, not a key; say --{'.'.join(parents)}.<name>.<key>")
    here[last] = value


def taken_for_number(data: Any, values: Any) -> str | None:
    """Return the key of a true or false that was read as 1 or 0, None without; a limit of `true` is no limit of 1."""
    if isinstance(data, bool) and not isinstance(values, bool):
        return ""
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(data, dict) and isinstance(values, dict):
        pairs = [(key, data[key], values[key]) for key in data.keys() & values.keys()]
    elif isinstance(data, list) and isinstance(values, (list, tuple)):
        pairs = [(index, *both) for index, both in enumerate(zip(data, values, strict=False))]
    for key, item, value in pairs:
        found = taken_for_number(item, value)
        if found is not None:
            return f"{key}.{found}".rstrip(".")
    return None


def _item(items: list[Any], part: str, dotted: str) -> Any:
    if part.isdecimal() and int(part) < len(items):
        return items[int(part)]
    for item in items:
        if isinstance(item, dict) and item.get("name") == part:
            return item
    names = [item.get("name") for item in items if isinstance(item, dict)]
    raise BadInputError(f"--{dotted}: no item {part!r} (allowed {names} or an index)")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problem of a `model` that was refused as one line: where, what, got, allowed, cure."""
    # a misspelt key is also a missing one, and the misspelling is what helps
    first = min(error.errors(include_url=False), key=lambda entry: entry["type"] != "extra_forbidden")
    # the tag of a union stands in `loc` though no file has it
    where = ".".join(str(part) for part in first["loc"] if part not in _TAGS)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = _keys_beside(first["loc"], model)
        near = get_close_matches(key, known, n=1, cutoff=0.5)
        stem = next((name for name in known if name.split("_")[:2] == key.split("_")[:2]), None)
        guess = stem or (near[0] if near else None)
        cure = f"did you mean {guess!r}? Units stand in the key's name" if guess else f"allowed {sorted(known)}"
        return f"unknown key {where!r}; {cure}{more}"
    got = f", got {first['input']!r}" if first["type"] != "missing" and not isinstance(first["input"], dict) else ""
    return f"{where or 'station'}: {first['msg'].removeprefix('Value error, ')}{got}{more}"


def _keys_beside(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Names that the section at `loc[:-1]` knows."""
    schema = model.model_json_schema()
    node: dict[str, Any] = schema
    for part in loc[:-1]:
        node = _resolve(node, schema)
        if "discriminator" in node and isinstance(part, str):
            node = {"$ref": node["discriminator"]["mapping"][part]}
        elif isinstance(part, int):
            node = node.get("items", node)
        else:
            node = node.get("properties", {}).get(part, node)
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node or (len(node.get("anyOf", [])) == 2 and "$ref" in node["anyOf"][0]):
        reference = node.get("$ref") or node["anyOf"][0]["$ref"]
        node = schema["$defs"][reference.split("/")[-1]]
    return node
