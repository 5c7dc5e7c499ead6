"""What ./launch/setup.sh installs."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIN = re.compile(r"([A-Za-z0-9._-]+)==[0-9][0-9a-z.]*")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> list[str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    matches = [PIN.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if match is None]
    return [canonical(match[1]) for match in matches if match]


def required() -> set[str]:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    return {canonical(re.split(r"[<>=;\[ ]", line, maxsplit=1)[0]) for line in [*PROJECT["dependencies"], *extras]}


def test_every_requirement_has_one_exact_pin() -> None:
    assert required() <= set(pins())
    assert len(pins()) == len(set(pins()))


def test_only_one_onnx_runtime_is_installed() -> None:
    # the CPU and the GPU package share one module and overwrite each other
    assert [name for name in pins() if name.startswith("onnxruntime")] == ["onnxruntime-gpu"]
    there = {canonical(found.name) for found in distributions()}
    assert {name for name in there if re.fullmatch(r"onnxruntime(-\w+)?", name)} == {"onnxruntime-gpu"}


@pytest.mark.parametrize("script", ["launch/demo.sh", "launch/test.sh", "launch/setup.sh", ".ci/run"])
def test_shell_scripts_can_be_started(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert (ROOT / script).read_text().startswith("#!/usr/bin/env bash\n")
