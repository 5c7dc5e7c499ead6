"""One Gymnasium environment: made, reset, stepped and asked, with one line for whatever is wrong with it."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from robot.environment.config import GymnasiumArmConfig
from robot.errors import BadInputError, HardwareError

Array = NDArray[np.float64]
_RATE_TOLERANCE = 0.02


class Environment:
    """Owns the environment; entering makes it and resets it for the first time.

    Args:
        config: of the station.
        where: the station's name, for messages.
        rate_hz: of the loop; an environment that says how often it wants to be stepped must agree.
        rendered: also make pictures.

    Attributes:
        reward: of the last step; NaN after a reset.
        terminated, truncated: what the last step said, apart.
        info: what it told besides.
        changes: counts up with every step and reset.
    """

    def __init__(self, config: GymnasiumArmConfig, where: str, *, rate_hz: float, rendered: bool) -> None:
        self._config, self._rate_hz, self._rendered = config, rate_hz, rendered
        self._where = f"{where}: environment {config.environment!r}"
        self._made: Any = None
        self._observation: Mapping[str, Array] = {}
        self.info: Mapping[str, Any] = {}
        self.changes = 0
        self._forget()

    def __enter__(self) -> Self:
        """Make it and look whether the station fits it. Raises BadInputError."""
        self._made = self._make()
        try:
            self._check_actions()
            self._check_rate()
            self.reset(0)
            self._check_places()
        except BaseException:
            self._made.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._made.close()

    @property
    def done(self) -> bool:
        """True after a step that ended the episode, either way; it is stepped no more until it is reset."""
        return self.terminated or self.truncated

    @property
    def action_bounds(self) -> tuple[Array, Array]:
        """Least and greatest action, shape (A,) each."""
        space = self._made.action_space
        return np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)

    def reset(self, seed: int) -> None:
        """Begin a new episode; the same seed gives the same one. Raises HardwareError."""
        self._forget()
        try:
            observation, info = self._made.reset(seed=seed)
            self._observation, self.info = _by_name(observation), dict(info)
        except Exception as error:  # whatever a stranger's code raises
            raise HardwareError(f"{self._where}: reset failed ({_words(error)}); look into its package") from error

    def step(self, action: Array) -> None:
        """Go on by one step with an action (A,) inside of the bounds. Raises HardwareError."""
        assert not self.done, "an episode that is over goes on after a reset only"
        try:
            observation, reward, terminated, truncated, info = self._made.step(
                action.astype(self._made.action_space.dtype)
            )
            self._observation, self.info = _by_name(observation), dict(info)
            self.reward, self.terminated, self.truncated = float(reward), bool(terminated), bool(truncated)
        except Exception as error:  # whatever a stranger's code raises
            self.truncated = True  # nobody knows what is left of it: reset it first
            raise HardwareError(f"{self._where}: step failed ({_words(error)}); reset it") from error
        self.changes += 1

    def pick(self, place: str) -> Array:
        """Return the numbers at a place of the observation, as `robot.environment.config.Where` names them, (N,).

        Raises:
            BadInputError: there is no such key, or it is shorter.
            HardwareError: a number is not finite.
        """
        name, begin, end = _parsed(place)
        known = self._observation
        if name not in known:
            raise BadInputError(f"{self._where}: its observation has no {name!r} (allowed {sorted(known)})")
        values = known[name]
        if begin is not None:
            end = begin + 1 if end is None else end
            if not begin < end <= len(values):
                raise BadInputError(f"{self._where}: {place!r} is not within the {len(values)} numbers of {name!r}")
            values = values[begin:end]
        if not np.isfinite(values).all():
            raise HardwareError(f"{self._where}: {place!r} is {values}, not finite; reset it")
        return values.copy()

    def picture(self) -> NDArray[np.uint8]:
        """Return a picture of the environment as it stands, (H, W, 3). Raises HardwareError."""
        try:
            rgb = np.asarray(self._made.render())
        except Exception as error:  # whatever a stranger's code raises
            raise HardwareError(f"{self._where}: render failed ({_words(error)})") from error
        if rgb.ndim != 3 or rgb.shape[2] < 3 or rgb.dtype != np.uint8:
            raise HardwareError(f"{self._where}: render gives {rgb.shape} {rgb.dtype}, not a picture (H, W, 3) uint8")
        return np.ascontiguousarray(rgb[..., :3])

    def _forget(self) -> None:
        self._observation = {}
        self.info = {}
        self.reward, self.terminated, self.truncated = math.nan, False, False
        self.changes += 1

    def _make(self) -> Any:
        try:
            import gymnasium
        except ImportError:
            raise BadInputError(
                f"{self._where}: needs the package gymnasium, which is not installed; run pip install gymnasium"
            ) from None
        package = self._config.package
        try:
            if package:
                importlib.import_module(package)
        except ImportError as error:
            raise BadInputError(
                f"{self._where}: package {package!r} cannot be imported ({_words(error)}); install it or correct "
                "arm.package"
            ) from None
        options: dict[str, Any] = dict(self._config.options)
        if self._rendered:
            options.setdefault("render_mode", "rgb_array")
        try:
            return gymnasium.make(self._config.environment, disable_env_checker=True, **options)
        except gymnasium.error.UnregisteredEnv as error:
            raise BadInputError(
                f"{self._where}: is not known ({_words(error)}); correct arm.environment, or name in arm.package the "
                "module that registers it"
            ) from None
        except Exception as error:  # whatever a stranger's constructor raises
            raise BadInputError(f"{self._where}: cannot be made ({_words(error)}); look at arm.options") from error

    def _check_actions(self) -> None:
        from gymnasium.spaces import Box

        space, action = self._made.action_space, self._config.action
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise BadInputError(f"{self._where}: its actions are {space}; allowed is a Box of one dimension")
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise BadInputError(f"{self._where}: its actions {space} have no bounds; wrap it so that they do")
        if action.kind == "tcp_delta" and len(action.dims) != space.shape[0]:
            raise BadInputError(
                f"{self._where}: its actions have {space.shape[0]} numbers, arm.action.dims names {len(action.dims)} "
                f"{action.dims}; name each number's dimension"
            )

    def _check_rate(self) -> None:
        """Where the environment says how often a second it is stepped, the loop must do so."""
        rate_hz = self._made.metadata.get("render_fps")
        if isinstance(rate_hz, (int, float)) and abs(rate_hz / self._rate_hz - 1.0) > _RATE_TOLERANCE:
            raise BadInputError(
                f"{self._where}: steps {rate_hz:g} times a second by its own word, loop.rate_hz is {self._rate_hz:g}; "
                f"set loop.rate_hz to {rate_hz:g}"
            )

    def _check_places(self) -> None:
        """Whether the observation has what the station names, and as many numbers of it as that needs."""
        state = self._config.state
        needed = [
            ("tcp_position_m", state.tcp_position_m, 3),
            ("tcp_quat_xyzw", state.tcp_quat_xyzw, 4),
            ("tcp_velocity_m_s", state.tcp_velocity_m_s, 3),
            ("gripper_width_m", state.gripper_width_m, 1),
        ]
        for key, place, size in needed:
            if isinstance(place, str) and (got := len(self.pick(place))) != size:
                raise BadInputError(
                    f"{self._where}: arm.state.{key} {place!r} has {got} numbers, {size} are needed; name that many"
                )
        for place in state.readings.values():
            self.pick(place)


def _by_name(observation: Any) -> dict[str, Array]:
    """Return what is numbers in an observation by key, each flat in float64."""
    named = observation if isinstance(observation, Mapping) else {"observation": observation}
    arrays = {str(key): np.asarray(value) for key, value in named.items()}
    return {key: value.astype(np.float64).ravel() for key, value in arrays.items() if value.dtype.kind in "fiub"}


def _parsed(place: str) -> tuple[str, int | None, int | None]:
    name, begin, end = re.fullmatch(r"(\w+)(?:\[(\d+)(?::(\d+))?\])?", place, re.ASCII).groups()  # type: ignore[union-attr]
    return name, None if begin is None else int(begin), None if end is None else int(end)


def _words(error: BaseException) -> str:
    """The first line of what it says, or what it is."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
