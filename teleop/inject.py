"""Faults by hand: `--inject KIND[:TARGET][@AT][+FOR][=AMOUNT]`, and what shows those of the loop's own process."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from perception.faulty_source import CameraFault
from policy.chunk_source import ChunkFault
from robot.errors import BadInputError
from robot.simulation.world_process import WorldFault
from teleop.recorder_messages import RecorderFault
from teleop.supervision import RUN_PLACE, Deed, Injection

_SPEC = re.compile(
    r"(?P<kind>[a-z-]+)(?::(?P<target>[a-z0-9_]+))?(?:@(?P<at>[0-9.]+))?(?:\+(?P<for>[0-9.]+))?(?:=(?P<amount>[0-9.]+))?"
)
_LONGEST_S = 86_400.0  # a day, of when and for how long


class Target(enum.Enum):
    """What a fault hits."""

    CAMERA = "camera"
    SERVO = "servo"
    HARDWARE = "simulated arm"
    LOOP = "loop"
    SUPERVISOR = "supervisor"
    RECORDER = "recorder"
    LEARNER = "learner"
    POLICY = "policy"
    OPERATOR = "operator"
    ARM = "arm"


@dataclass(frozen=True, kw_only=True)
class FaultKind:
    """One word of `--inject`.

    Attributes:
        target: what it hits.
        deed: done to a process; None for a fault that the loop's own process shows.
        number: of the fault that a process is told to show.
        amount: how much, unless the person says; 0 for a fault that has no amount.
        most: greatest amount.
        for_s: for how long, unless the person says [s].
        what: for the help.
    """

    target: Target
    what: str
    deed: Deed | None = None
    number: int = 0
    amount: float = 0.0
    most: float = 100.0
    for_s: float = 1.0


def _camera(number: CameraFault, what: str, amount: float = 0.0, most: float = 100.0) -> FaultKind:
    return FaultKind(
        target=Target.CAMERA, deed=Deed.FAULT, number=number, amount=amount, most=most, for_s=2.0, what=what
    )


KINDS: dict[str, FaultKind] = {
    "camera-kill": FaultKind(target=Target.CAMERA, deed=Deed.KILL, what="its process is killed"),
    # longer than the silence after which they are started anew
    "camera-freeze": FaultKind(
        target=Target.CAMERA, deed=Deed.FREEZE, for_s=3.0, what="its process stands still (SIGSTOP)"
    ),
    "camera-slow": _camera(CameraFault.SLOW, "frames come later by AMOUNT s", 0.3),
    "camera-disorder": _camera(CameraFault.OUT_OF_ORDER, "frames come out of order"),
    "camera-clock": _camera(CameraFault.JUMPING_CLOCK, "its clock jumps by AMOUNT s", 5.0),
    "camera-drops": _camera(CameraFault.DROPS, "a share AMOUNT of the frames is lost", 0.3, 1.0),
    "camera-size": _camera(CameraFault.WRONG_SIZE, "pictures of the wrong size"),
    "camera-silent": _camera(CameraFault.SILENT, "the device gives nothing"),
    "camera-gone": _camera(CameraFault.GONE, "the device is unplugged"),
    "pad-unplug": FaultKind(target=Target.OPERATOR, for_s=2.0, what="the person's device is unplugged"),
    "pad-silent": FaultKind(target=Target.OPERATOR, what="the person's device says nothing"),
    "operator-kill": FaultKind(target=Target.OPERATOR, deed=Deed.KILL, what="the window's process is killed"),
    "operator-freeze": FaultKind(
        target=Target.OPERATOR, deed=Deed.FREEZE, for_s=3.0, what="the window's process stands still"
    ),
    "base-raise": FaultKind(target=Target.POLICY, number=ChunkFault.RAISE, what="the base policy raises"),
    "base-hang": FaultKind(target=Target.POLICY, number=ChunkFault.HANG, what="the base policy does not answer"),
    "base-nan": FaultKind(target=Target.POLICY, number=ChunkFault.NAN, what="the base policy gives NaN"),
    "base-slow": FaultKind(
        target=Target.POLICY, number=ChunkFault.SLOW, amount=0.5, what="the base policy needs AMOUNT s more"
    ),
    "learner-garbage": FaultKind(target=Target.LEARNER, what="the learner sends garbage for weights"),
    "learner-kill": FaultKind(target=Target.LEARNER, deed=Deed.KILL, what="the learner is killed"),
    "recorder-kill": FaultKind(target=Target.RECORDER, deed=Deed.KILL, what="the recorder is killed"),
    "recorder-freeze": FaultKind(target=Target.RECORDER, deed=Deed.FREEZE, what="the recorder stands still"),
    "disk-full": FaultKind(target=Target.RECORDER, number=RecorderFault.DISK_FULL, for_s=2.0, what="the disk is full"),
    "disk-slow": FaultKind(
        target=Target.RECORDER, number=RecorderFault.SLOW_DISK, amount=0.2, for_s=2.0, what="writes take AMOUNT s more"
    ),
    "loop-stall": FaultKind(target=Target.LOOP, deed=Deed.FREEZE, for_s=0.3, what="the loop stands still (SIGSTOP)"),
    "loop-kill": FaultKind(target=Target.LOOP, deed=Deed.KILL, what="the loop is killed"),
    "servo-kill": FaultKind(target=Target.SERVO, deed=Deed.KILL, what="the servo is killed"),
    "servo-freeze": FaultKind(target=Target.SERVO, deed=Deed.FREEZE, for_s=0.3, what="the servo stands still"),
    "arm-off": FaultKind(target=Target.HARDWARE, deed=Deed.KILL, what="the simulated arm is switched off"),
    "arm-reflex": FaultKind(
        target=Target.HARDWARE, deed=Deed.FAULT, number=WorldFault.REFLEX, what="the simulated arm stops by a reflex"
    ),
    "arm-fault": FaultKind(target=Target.ARM, what="the arm reports a fault, until the person arms again"),
    "supervisor-kill": FaultKind(target=Target.SUPERVISOR, deed=Deed.KILL, what="the supervisor is killed"),
}

# what stands for an arm of which the table's is a shadow
_ALSO = {"arm-off": "franka simulator", "arm-reflex": "simulated table"}

HELP = "; ".join(f"{name}: {kind.what}" for name, kind in KINDS.items())


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault that was asked for; times count from the first tick of the run.

    Attributes:
        word: as the person wrote it.
        name: key of `KINDS`.
        target_name: which camera, where it hits one; None for the first.
    """

    word: str
    name: str
    target_name: str | None
    at_s: float
    for_s: float
    amount: float

    @property
    def kind(self) -> FaultKind:
        """What it is."""
        return KINDS[self.name]


def read_fault(word: str) -> Fault:
    """Read one `--inject`. Raises BadInputError when it is none."""
    name = re.split("[:@+=]", word, maxsplit=1)[0]
    kind = KINDS.get(name)
    if kind is None:
        near = get_close_matches(name, KINDS, n=1)
        raise BadInputError(
            f"--inject {word!r}: {name!r} is no fault; "
            + (f"did you mean {near[0]}?" if near else f"allowed {', '.join(KINDS)}")
        )
    found = _SPEC.fullmatch(word)
    if found is None:
        raise BadInputError(f"--inject {word}: not KIND[:TARGET][@AT][+FOR][=AMOUNT]; e.g. camera-slow:front@2+1.5=0.3")
    try:
        at_s, for_s, amount = (
            float(found[part]) if found[part] else default
            for part, default in (("at", 1.0), ("for", kind.for_s), ("amount", kind.amount))
        )
    except ValueError:
        raise BadInputError(f"--inject {word}: times and amounts are numbers, such as camera-slow@2+1.5=0.3") from None
    if found["target"] and kind.target is not Target.CAMERA:
        raise BadInputError(f"--inject {word}: takes no target, only camera faults do")
    if found["for"] and kind.deed is Deed.KILL:
        raise BadInputError(f"--inject {word}: +{for_s:g} s means nothing, {kind.what} at once; leave it out")
    if found["amount"] and not kind.amount:
        raise BadInputError(f"--inject {word}: {name} has no amount; leave out ={amount:g}")
    if kind.amount and not 0.0 < amount <= kind.most:
        raise BadInputError(f"--inject {word}: got ={amount:g} (allowed over 0 to {kind.most:g}); {kind.what}")
    if not 0.0 < for_s <= _LONGEST_S:
        raise BadInputError(
            f"--inject {word}: +{for_s:g} s is no time (allowed over 0 to {_LONGEST_S:g} s); leave it out for "
            f"{kind.for_s:g} s"
        )
    if at_s > _LONGEST_S:
        raise BadInputError(f"--inject {word}: @{at_s:g} s never comes (allowed 0 to {_LONGEST_S:g} s)")
    return Fault(word=word, name=name, target_name=found["target"], at_s=at_s, for_s=for_s, amount=amount)


def process_injections(faults: Sequence[Fault], names: Sequence[str], cameras: Sequence[str]) -> list[Injection]:
    """Return what the supervisor is to do of `faults`.

    Args:
        faults: all that were asked for.
        names: of the processes, in their order on the board behind the run's own.
        cameras: names of the station's cameras.

    Raises:
        BadInputError: a fault hits a process that this run does not have.
    """
    injections = []
    for fault in faults:
        kind, deed = fault.kind, fault.kind.deed
        if deed is None and kind.target is Target.POLICY and Target.POLICY.value in names:
            deed = Deed.FAULT
        if deed is None:
            continue
        name = kind.target.value
        if kind.target is Target.CAMERA:
            camera = fault.target_name or cameras[0]
            if camera not in cameras:
                raise BadInputError(f"--inject {fault.word}: no camera {camera!r} (allowed {', '.join(cameras)})")
            name = f"camera {camera}"
        where: int | None = RUN_PLACE
        if kind.target is Target.SUPERVISOR:
            where = None
        elif kind.target is not Target.LOOP:
            exact = kind.target is Target.CAMERA
            found = [
                i
                for i, process in enumerate(names)
                if process in (name, _ALSO.get(fault.name)) or (not exact and process.startswith(name))
            ]
            if not found:
                raise BadInputError(
                    f"--inject {fault.word}: this run has no {name} of its own (its processes: {', '.join(names)})"
                )
            where = RUN_PLACE + 1 + found[0]
        injections.append(
            Injection(
                place=where,
                deed=deed,
                at_s=fault.at_s,
                for_s=fault.for_s,
                number=kind.number,
                amount=fault.amount,
            )
        )
    return injections


class LocalFaults:
    """Which faults the loop's own process is to show now.

    Args:
        faults: all that were asked for.
        now_s: the loop's clock.
        policy: whether those of the base policy are among them; with a process of its own they are shown there.
    """

    def __init__(self, faults: Sequence[Fault], now_s: Callable[[], float], *, policy: bool = True) -> None:
        here = [fault for fault in faults if fault.kind.deed is None]
        self._faults = [fault for fault in here if policy or fault.kind.target is not Target.POLICY]
        self._now_s = now_s
        self._began_s: float | None = None

    def __bool__(self) -> bool:
        return bool(self._faults)

    def begin(self) -> None:
        """The first tick of the run is now."""
        if self._began_s is None:
            self._began_s = self._now_s()

    def shows(self, prefix: str) -> bool:
        """Return whether a fault whose name begins so is to be shown at any time."""
        return any(fault.name.startswith(prefix) for fault in self._faults)

    def active(self, name: str) -> Fault | None:
        """Return the fault of this name if it is to be shown now."""
        if self._began_s is None:
            return None
        since_s = self._now_s() - self._began_s
        for fault in self._faults:
            if fault.name == name and fault.at_s <= since_s < fault.at_s + fault.for_s:
                return fault
        return None
