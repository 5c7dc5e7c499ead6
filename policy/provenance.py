"""Which code, libraries, machine and person made a recording, and how its clock relates to UTC."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

from pydantic import Field

from robot.clock import Clock
from robot.strict import Strict

Utc = Annotated[str, Field(pattern=r"^\d{8}T\d{6}\.\d{6}Z$")]

_LIBRARIES = ("handrail", "numpy", "scipy", "h5py", "onnxruntime-gpu", "onnxruntime", "mujoco", "pyzmq", "pydantic")
_ROOT = Path(__file__).resolve().parents[1]


class Provenance(Strict):
    """Where a recording comes from. What could not be found out is None or left out, never made up.

    Attributes:
        commit: git commit of the clone; None outside one.
        modified: True when tracked files differed from that commit; None where git could not say.
        libraries: versions of Python and of the libraries whose results may depend on them.
        boot_id: of the kernel; monotonic times compare within one boot only.
        cpu: model, since float results are promised bit for bit on the machine that wrote them.
        monotonic_s, utc: one instant on both clocks; monotonic_s is virtual in lock-step [s].
        operator: who supervised, or None.
    """

    commit: str | None
    modified: bool | None
    libraries: dict[str, str]
    boot_id: str | None
    cpu: str
    monotonic_s: float
    utc: Utc
    operator: str | None


def utc_now() -> str:
    """Return the present time as it stands in file names, to the microsecond."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def collect_provenance(clock: Clock, *, operator: str | None) -> Provenance:
    """Return what is known here and now; the slow parts are found out once per process (20 ms)."""
    commit, modified = _git()
    return Provenance(
        commit=commit,
        modified=modified,
        libraries=_libraries(),
        boot_id=_boot_id(),
        cpu=_cpu(),
        monotonic_s=clock.now_s(),
        utc=utc_now(),
        operator=operator,
    )


@cache
def _git() -> tuple[str | None, bool | None]:
    def ask(*words: str) -> str | None:
        try:
            answer = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, timeout=5, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    # a clone that merely contains this folder is another project's history
    top = ask("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != _ROOT:
        return None, None
    changes = ask("status", "--porcelain", "--untracked-files=no")
    return ask("rev-parse", "HEAD"), None if changes is None else bool(changes)


@cache
def _libraries() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


@cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
