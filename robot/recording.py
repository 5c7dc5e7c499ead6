"""Episodes of a real arm from an HDF5 file, and the one that is being played.

The layout is that of BridgeData V2 excerpts: one group per episode with `state` (T, 7), `action` (T, 7) and
`image_*` (T, H, W, 3), an attribute `instruction`, and `rate_hz` on the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from robot.errors import BadInputError, HardwareError
from robot.geometry import matrix_to_rotvec, rotvec_to_matrix

Array = NDArray[np.float64]

# Roll, pitch and yaw turn about the fixed x, y and z axes of the base (R = Rz Ry Rx), and the operator's three
# rotation deltas are a rotation vector in the base frame. Found from the data: over 225 steps of 25 excerpts,
# the measured turn then differs from the action by 9.5 mrad on average; read about moving axes, by 13.6 mrad; with
# the delta in the TCP frame, by 12.2 mrad; as plain differences of the three angles, by 12.2 mrad.
# A playback starts this early, so that a tick due at the very same instant, summed another way, sees its frame.
EARLY_S = 1e-6


@dataclass(frozen=True, kw_only=True)
class RecordedEpisode:
    """What the real arm and its operator did in one episode of T steps.

    Attributes:
        name: name of its group in the file.
        instruction: what the operator was asked to do.
        T_base_tcp: measured poses, shape (T, 4, 4) [m].
        tcp_velocity: backward difference of the poses, shape (T, 6), base frame [m/s, rad/s]; 0 at the first step.
        opening: measured gripper opening, shape (T,), 0 closed to 1 open.
        action: what the operator asked for at each step, shape (T, 7): translation [m] and rotation vector [rad]
            of one step in the base frame, then the gripper's opening, 0 to 1.
        images: shape (T, H, W, 3) uint8 of each view.
        digest: SHA-256 of state and action [hex]; tells an episode whatever its name or place in a file.
    """

    name: str
    instruction: str
    T_base_tcp: Array
    tcp_velocity: Array
    opening: Array
    action: Array
    images: Mapping[str, NDArray[np.uint8]]
    digest: str

    def __len__(self) -> int:
        """Return the number of steps T."""
        return len(self.action)


class Recording:
    """The episodes of one file. Arm and cameras share it, and play what was selected last."""

    def __init__(self, path: Path, rate_hz: float, episodes: tuple[RecordedEpisode, ...]) -> None:
        self.path = path
        self.rate_hz = rate_hz
        self.episodes = episodes
        self._playing: RecordedEpisode | None = None
        self._times_s: Array = np.zeros(0)
        self._first_frame_id = 0

    @classmethod
    def open(cls, path: Path) -> Recording:
        """Read `path` whole. Raises BadInputError when it is not such a recording."""
        if not path.is_file():
            raise BadInputError(f"recording {path}: no such file; give the HDF5 file with --recording PATH")
        try:
            with h5py.File(path, "r") as file:
                return cls(path, _rate_hz(path, file), _episodes(path, file))
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise BadInputError(f"recording {path}: not a readable HDF5 file ({reason}); copy it again") from error

    @property
    def views(self) -> dict[str, tuple[int, int]]:
        """(height, width) of each view [px]."""
        return {name: (images.shape[1], images.shape[2]) for name, images in self.episodes[0].images.items()}

    @property
    def playing(self) -> RecordedEpisode:
        """The episode that was selected last. Raises HardwareError before the first."""
        if self._playing is None:
            raise HardwareError(f"recording {self.path}: no episode is playing; select one first")
        return self._playing

    @property
    def times_s(self) -> Array:
        """When each step of the playing episode was taken, shape (T,) [s]; empty before the first."""
        return self._times_s

    @property
    def first_frame_id(self) -> int:
        """Frame id of step 0 of the playing episode; ids go on counting from one episode to the next."""
        return self._first_frame_id

    def select(self, index: int, start_s: float) -> RecordedEpisode:
        """Begin to play episode `index` at `start_s` [s].

        Raises:
            BadInputError: there is no such episode.
        """
        if not 0 <= index < len(self.episodes):
            raise BadInputError(
                f"recording {self.path}: there is no episode {index} (allowed 0 to {len(self.episodes) - 1})"
            )
        if self._playing is not None:
            self._first_frame_id += len(self._playing)
        self._playing = self.episodes[index]
        self._times_s = start_s - EARLY_S + np.arange(len(self._playing)) / self.rate_hz
        return self._playing

    def layout(self) -> dict[str, str | float]:
        """Return what an episode's header keeps of the playback, so that a log finds its way back to the recording."""
        return {"recorded_episode": self.playing.name, "recorded_start_s": float(self._times_s[0])}

    def step(self, now_s: float, latency_s: float = 0.0) -> int:
        """Return the newest step known at `now_s` to a reader `latency_s` late; -1 before the first."""
        return int(np.searchsorted(self._times_s + latency_s, now_s, side="right")) - 1

    def finished(self, now_s: float) -> bool:
        """Return whether the playing episode's last step has passed its full period at `now_s`."""
        return self._playing is not None and now_s >= self._times_s[-1] + 1.0 / self.rate_hz


def _rate_hz(path: Path, file: h5py.File) -> float:
    rate_hz = file.attrs.get("rate_hz")
    if not isinstance(rate_hz, (int, float)) or not 0.1 <= rate_hz <= 200.0:
        raise BadInputError(
            f"recording {path}: attribute rate_hz is {rate_hz} (allowed 0.1 to 200); add it to the file"
        )
    return float(rate_hz)


def _episodes(path: Path, file: h5py.File) -> tuple[RecordedEpisode, ...]:
    groups = {name: group for name, group in file.items() if isinstance(group, h5py.Group)}
    if not groups:
        raise BadInputError(f"recording {path}: it holds no episode; each is a group with state, action and images")
    views = sorted(name for name in next(iter(groups.values())) if name.startswith("image_"))
    if not views:
        raise BadInputError(f"recording {path}: the first episode has no image_* dataset; add one per camera view")
    episodes = tuple(_episode(path, name, groups[name], views) for name in sorted(groups))
    for episode in episodes:
        for view in views:
            got, expected = episode.images[view].shape[1:], episodes[0].images[view].shape[1:]
            if got != expected:
                raise BadInputError(
                    f"recording {path}: {episode.name}/{view} has images of {got}, those of {episodes[0].name} are"
                    f" {expected}; one recording has one size per view"
                )
    return episodes


def _episode(path: Path, name: str, group: h5py.Group, views: list[str]) -> RecordedEpisode:
    state = _dataset(path, name, group, "state", (None, 7), "float")
    steps = len(state)
    action = _dataset(path, name, group, "action", (steps, 7), "float")
    images = {view: _dataset(path, name, group, view, (steps, None, None, 3), "uint8") for view in views}
    instruction = group.attrs.get("instruction")
    if not isinstance(instruction, str):
        raise BadInputError(f"recording {path}: {name} has no attribute instruction; add the task as text")
    digest = hashlib.sha256(state.astype("<f4").tobytes() + action.astype("<f4").tobytes()).hexdigest()
    T_base_tcp = np.tile(np.eye(4), (steps, 1, 1))
    T_base_tcp[:, :3, 3] = state[:, :3]
    T_base_tcp[:, :3, :3] = [_rotation(*angles) for angles in state[:, 3:6].astype(np.float64).tolist()]
    rate_hz = _rate_hz(path, group.file)
    arrays = {
        "T_base_tcp": T_base_tcp,
        "tcp_velocity": _velocity(T_base_tcp, rate_hz),
        "opening": state[:, 6].astype(np.float64),
        "action": action.astype(np.float64),
    }
    for array in (*arrays.values(), *images.values()):
        array.flags.writeable = False
    return RecordedEpisode(name=name, instruction=instruction, images=images, digest=digest, **arrays)


def _rotation(roll_rad: float, pitch_rad: float, yaw_rad: float) -> Array:
    """Return Rz Ry Rx, shape (3, 3)."""
    x, y, z = roll_rad * np.eye(3)[0], pitch_rad * np.eye(3)[1], yaw_rad * np.eye(3)[2]
    R: Array = rotvec_to_matrix(z) @ rotvec_to_matrix(y) @ rotvec_to_matrix(x)
    return R


def _velocity(T_base_tcp: Array, rate_hz: float) -> Array:
    """Backward differences, (T, 6): of the past only, as an arm at play could know them."""
    velocity = np.zeros((len(T_base_tcp), 6))
    if len(T_base_tcp) > 1:
        R = T_base_tcp[:, :3, :3]
        velocity[1:, :3] = np.diff(T_base_tcp[:, :3, 3], axis=0) * rate_hz
        velocity[1:, 3:] = [rate_hz * matrix_to_rotvec(R[step] @ R[step - 1].T) for step in range(1, len(R))]
    return velocity


def _dataset(
    path: Path, episode: str, group: h5py.Group, name: str, shape: tuple[int | None, ...], kind: str
) -> NDArray[Any]:
    """Read one dataset whose shape is `shape` (None: at least 1) and that holds `kind`."""
    dataset = group.get(name)
    where = f"recording {path}: {episode}/{name}"
    if not isinstance(dataset, h5py.Dataset):
        raise BadInputError(f"{where} is missing; each episode needs state, action and the same image_* datasets")
    fits = len(dataset.shape) == len(shape) and all(
        got >= 1 if wanted is None else got == wanted for got, wanted in zip(dataset.shape, shape, strict=True)
    )
    if not fits:
        wanted = tuple("any" if size is None else size for size in shape)
        raise BadInputError(f"{where} has shape {dataset.shape} (allowed {wanted}); see the recording's layout")
    if not dataset.dtype.name.startswith(kind):
        raise BadInputError(f"{where} holds {dataset.dtype} (allowed {kind}); convert it")
    values: NDArray[Any] = dataset[()]
    if kind == "float" and not np.isfinite(values).all():
        raise BadInputError(f"{where} holds values that are not finite; drop that episode")
    return values
