"""Takes a shot whenever board and arm stand still, the picture is sharp and the view is a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardDetector, BoardView, Unseen, likely_dictionary
from calibration.capture_guide import CameraGuide, hand_advice
from calibration.picture_views import PictureView, ViewsFile
from calibration.sharpness import edge_width_px
from calibration.shots_folder import ShotsFolder
from calibration.stillness import STILL_S, ArmStillness, BoardStillness
from perception.arm_history import ArmHistory
from perception.frame import Frame
from perception.rig_look import RigLook

_ANOTHER = "another view: move, tilt or turn the board or the hand"
_KEPT_S = 3.0
_CURE_S = 5.0  # as long as a camera may take to open
_NOTHING_S, _HINT_EVERY_S = 3.0, 5.0


@dataclass(kw_only=True, eq=False)
class CameraNow:
    """What one camera sees at present.

    Attributes:
        view: of the board, None without.
        why_not: why there is none.
        still: whether the board has stood still for long enough.
        blurred: whether its edges are too wide.
        new: whether no kept picture shows it like that.
    """

    frame: Frame | None = None
    view: BoardView | None = None
    why_not: str = "no picture yet"
    still: bool = False
    blurred: bool = False
    new: bool = False
    stillness: BoardStillness = field(default_factory=BoardStillness)

    def lost(self, why_not: str) -> None:
        """The camera gives nothing."""
        self.frame, self.view, self.why_not, self.still = None, None, why_not, False
        self.stillness.add(0.0, None)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A shot that was taken.

    Attributes:
        number: its name.
        corners: how many corners each of its pictures shows, by camera.
        with_arm: whether the arm's pose was kept with it.
    """

    number: int
    corners: Mapping[str, int]
    with_arm: bool

    @property
    def words(self) -> str:
        """One line for people."""
        cameras = ", ".join(f"{name} {count} corners" for name, count in self.corners.items())
        return f"shot {self.number}: {cameras}{', pose of the arm' if self.with_arm else ''}"


class Capture:
    """Decides on each look at the rig, and keeps what is worth keeping. It sends nothing to anything.

    Args:
        folder: where the shots go; those that are there count.
        board: what is shown.
        sizes: (height, width) of each camera's pictures [px].
        has_arm: whether looks say where the arm is.

    Attributes:
        cameras: what each sees at present.
        guides: what is kept of each, and what it lacks.
        waits_for: what is wanted before the next shot is taken by itself.
        hint: what is likely wrong where no camera sees the board.
    """

    def __init__(
        self, folder: ShotsFolder, board: Board, sizes: Mapping[str, tuple[int, int]], *, has_arm: bool
    ) -> None:
        self.folder, self.board, self.has_arm = folder, board, has_arm
        self.guides = {
            name: CameraGuide(board, ViewsFile(folder.path / "session" / f"views_{name}.jsonl")) for name in sizes
        }
        self.cameras = {name: CameraNow() for name in sizes}
        self.waits_for = "pictures"
        self.hint = ""
        self._detectors = {name: BoardDetector(board) for name in sizes}  # one each: they work side by side
        self._arm, self._arm_history = ArmStillness(), ArmHistory(span_s=_KEPT_S)
        self._seen_s: float | None = None
        self._hinted_s = 0.0
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(sizes)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    @property
    def count(self) -> int:
        """Shots in the folder."""
        return len(self.folder.numbers())

    def resume(self, progress: Callable[[PictureView], None] = lambda one: None) -> None:
        """Take in the shots that are there already."""
        for name, guide in self.guides.items():
            if files := self.folder.pictures(name):
                guide.add(files, progress)

    def step(self, look: RigLook, *, take: bool = False) -> Shot | None:
        """Look at what is new and take a shot where it is time for one.

        Args:
            look: at the rig.
            take: a person wants one now, moving or known as the view may be.

        Raises:
            BadInputError: the shot cannot be written.
        """
        self._take_in(look)
        self._arm.add(look.arm)
        for state in look.arm:
            self._arm_history.add(state)
        seeing = {name: now for name, now in self.cameras.items() if now.view is not None}
        if seeing:
            self._seen_s, self.hint = look.now_s, ""
        else:
            self._look_for_other_boards(look.now_s)
        self.waits_for = self._waits_for(seeing, look)
        if take and seeing and (not self.has_arm or look.arm_problem is None):
            return self._keep(seeing)
        if not self.waits_for:
            return self._keep({name: now for name, now in seeing.items() if not now.blurred})
        return None

    def missing(self) -> dict[str, tuple[str, ...]]:
        """Return what the shots lack, by camera and for the hand; empty when nothing is missing."""
        found = {name: guide.advice for name, guide in self.guides.items()}
        if self.has_arm:
            found["hand"] = hand_advice(self.folder.poses)
        return {name: lines for name, lines in found.items() if lines}

    def _take_in(self, look: RigLook) -> None:
        """See what the pictures that are new show."""
        for name, silent_s in look.silent_s.items():
            cure = "; look at its cable, and that no other program has it" if silent_s > _CURE_S else ""
            self.cameras[name].lost(f"no picture for {silent_s:.0f} s{cure}")
        fresh = {name: frame for name, frame in look.frames.items() if _is_newer(frame, self.cameras[name].frame)}
        for frame, (found, edge_px) in zip(fresh.values(), self._pool.map(self._look_at, fresh.values()), strict=True):
            now, guide = self.cameras[frame.camera], self.guides[frame.camera]
            now.frame = frame
            now.view = found if isinstance(found, BoardView) else None
            now.why_not = "" if now.view is not None else str(found)
            now.stillness.add(frame.captured_s, now.view)
            now.still = now.stillness.for_s >= STILL_S
            now.blurred = now.view is not None and guide.is_blurred(edge_px)
            now.new = now.view is not None and guide.is_new(now.view)

    def _look_at(self, frame: Frame) -> tuple[BoardView | Unseen, float | None]:
        grey = np.asarray(cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        found = self._detectors[frame.camera].detect(grey)
        return found, edge_width_px(grey, self.board, found) if isinstance(found, BoardView) else None

    def _waits_for(self, seeing: Mapping[str, CameraNow], look: RigLook) -> str:
        """Return what is still wanted before a shot is taken by itself; nothing when it is time."""
        if not seeing:
            return "a camera to see the board"
        if self.has_arm and look.arm_problem is not None:
            return f"the arm: {look.arm_problem}"
        moving = [name for name, now in seeing.items() if not now.still]
        if moving:
            return f"the board to stand still ({', '.join(moving)})"
        if self.has_arm and _oldest_s(seeing) - self._arm.since_s < STILL_S:
            return "the arm to stand still"
        sharp = {name: now for name, now in seeing.items() if not now.blurred}
        if not sharp:
            return "a sharp picture (look at focus and light; Enter takes it all the same)"
        if not any(now.new for now in sharp.values()):
            return _ANOTHER
        return ""

    def _keep(self, cameras: Mapping[str, CameraNow]) -> Shot:
        frames = {name: now.frame for name, now in cameras.items() if now.frame is not None}
        times_s = [frame.captured_s for frame in frames.values()]
        T_base_hand: NDArray[np.float64] | None = None
        if self.has_arm:
            middle_s = 0.5 * (min(times_s) + max(times_s))
            T_base_hand = self._arm_history.around(middle_s).at(middle_s).T_base_tcp
        number, self.waits_for = self.folder.next, _ANOTHER
        files = self.folder.save({name: frame.rgb for name, frame in frames.items()}, T_base_hand)
        corners = {name: len(now.view.ids) for name, now in cameras.items() if now.view is not None}
        for file in files:
            self.guides[file.parent.name].add([file])
            self.cameras[file.parent.name].new = False
        return Shot(number=number, corners=corners, with_arm=T_base_hand is not None)

    def _look_for_other_boards(self, now_s: float) -> None:
        """Say it where cameras show another board than the one that is looked for."""
        if self._seen_s is None:
            self._seen_s = now_s
        if now_s - self._seen_s < _NOTHING_S or now_s - self._hinted_s < _HINT_EVERY_S:
            return
        self._hinted_s, self.hint = now_s, ""
        for name, now in self.cameras.items():
            if now.frame is None:
                continue
            if now.why_not == Unseen.OTHER_BOARD:
                self.hint = f"{name} shows another board than {self.board.words}; give the printed board's file"
                return
            other = likely_dictionary(np.asarray(cv2.cvtColor(now.frame.rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8))
            if other is not None and other != self.board.dictionary:
                self.hint = (
                    f"{name} shows markers of {other}, --board says {self.board.dictionary}; give the printed board's "
                    "file"
                )
                return


def _is_newer(frame: Frame, last: Frame | None) -> bool:
    return last is None or (frame.frame_id, frame.captured_s) != (last.frame_id, last.captured_s)


def _oldest_s(cameras: Mapping[str, CameraNow]) -> float:
    return min(now.frame.captured_s for now in cameras.values() if now.frame is not None)
