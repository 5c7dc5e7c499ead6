from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from robot.command import Reason
from robot.errors import BadInputError
from teleop.arbiter import HoldReason, Source
from teleop.gamepad import Gamepad, GamepadConfig
from teleop.human_input import HumanCommand, HumanEvent
from teleop.keyboard import Keyboard
from teleop.operator_status import OperatorStatus
from teleop.sdl import pygame
from teleop.window import MAX_RATE_HZ, OperatorWindow
from teleop.window_drawing import SIZE, tiles

Pixels = NDArray[np.uint8]
STATUS = OperatorStatus(
    source=Source.POLICY,
    armed=True,
    rate_hz=20.0,
    wanted_rate_hz=20.0,
    tick=3,
    episode=1,
    successes=1,
    failures=0,
)


@pytest.fixture(autouse=True)
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def window() -> Iterator[OperatorWindow]:
    with OperatorWindow(Keyboard()) as window:
        yield window


class Screen:
    """Shows statuses, each late enough to be due, and takes the pixels."""

    def __init__(self, window: OperatorWindow) -> None:
        self._window = window
        self._now_s = 100.0

    def shows(self, status: OperatorStatus) -> Pixels:
        """Shape (W, H, 3)."""
        self._now_s += 1.0
        assert self._window.show(status, now_s=self._now_s)
        return pygame.surfarray.array3d(pygame.display.get_surface())


@pytest.fixture
def screen(window: OperatorWindow) -> Screen:
    return Screen(window)


def plain(colour: tuple[int, int, int], height: int = 84, width: int = 84) -> Pixels:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_closing_the_window_ends_the_run_once(window: OperatorWindow) -> None:
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert window.poll(1.0).events == HumanEvent.QUIT
    assert window.poll(1.1).events is HumanEvent.NONE


class SimulatedDevice(Keyboard):
    """Says the same at every read."""

    def read(self, now_s: float) -> HumanCommand:
        return HumanCommand(twist=np.full(6, 0.25), gripper=1.0, engaged=True, events=HumanEvent.HOLD, polled_s=now_s)


def test_closing_the_window_keeps_what_the_device_says() -> None:
    with OperatorWindow(SimulatedDevice()) as window:
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        command = window.poll(1.0)
    assert command.events == HumanEvent.QUIT | HumanEvent.HOLD
    assert (command.engaged, command.gripper, command.polled_s) == (True, 1.0, 1.0)
    np.testing.assert_array_equal(command.twist, np.full(6, 0.25))


def test_it_draws_no_faster_than_its_rate(window: OperatorWindow) -> None:
    shown = [window.show(STATUS, now_s=10.0 + step * 0.001) for step in range(1000)]
    assert shown[0]
    assert MAX_RATE_HZ - 1 <= sum(shown) <= MAX_RATE_HZ


def test_every_driver_has_its_own_colour(screen: Screen) -> None:
    banners = [tuple(screen.shows(replace(STATUS, source=source))[SIZE[0] // 2, 4]) for source in Source]
    assert len(set(banners)) == len(Source)


@pytest.mark.parametrize(
    "change",
    [
        {"armed": False},
        {"connected": False},
        {"hold_reason": HoldReason.STALE_FRAMES},
        {"safety": Reason.WORKSPACE},
        {"notice": "residual 12 in force"},
        {"rate_hz": 11.0},
        {"tick": 4},
        {"episode": 2},
        {"successes": 2},
        {"failures": 1},
        {"source": Source.HUMAN},
        {"images": {"front": plain((1, 2, 3))}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_picture_shows_every_part_of_the_status(screen: Screen, change: dict[str, object]) -> None:
    before, after = screen.shows(STATUS), screen.shows(replace(STATUS, **change))  # type: ignore[arg-type]
    assert (before != after).any()


def test_the_same_status_gives_the_same_picture(screen: Screen) -> None:
    np.testing.assert_array_equal(screen.shows(STATUS), screen.shows(STATUS))


def test_a_long_line_is_cut_instead_of_leaving_the_window(screen: Screen) -> None:
    shown = screen.shows(replace(STATUS, notice="camera 'wrist' stalled " * 20))
    assert (shown[-13:, 526:562] == shown[-1, 526]).all()


def test_cameras_are_shown_in_colour_side_by_side(screen: Screen) -> None:
    images = {"front": plain((250, 0, 0)), "wrist": plain((0, 0, 250), 60, 120)}
    shown = screen.shows(replace(STATUS, images=images))
    red, blue = ((shown == colour).all(axis=2) for colour in ((250, 0, 0), (0, 0, 250)))
    assert red.sum() > 90_000
    assert blue.sum() > 60_000
    assert np.nonzero(red)[0].max() < np.nonzero(blue)[0].min()


def test_a_picture_is_neither_mirrored_nor_upside_down(screen: Screen) -> None:
    image = plain((0, 0, 0), 100, 100)
    image[60:90, 10:40] = (0, 250, 0)
    shown = screen.shows(replace(STATUS, images={"front": image}))
    green_x, green_y = np.nonzero((shown == (0, 250, 0)).all(axis=2))
    assert green_x.mean() < 384
    assert green_y.mean() > 300


@pytest.mark.parametrize("count", range(8))
def test_any_number_of_cameras_is_shown(screen: Screen, count: int) -> None:
    images = {f"camera {index}": plain((250, 10 * index, 9), 48, 64) for index in range(count)}
    shown = screen.shows(replace(STATUS, images=images))
    for index in range(count):
        assert (shown == (250, 10 * index, 9)).all(axis=2).any()


def test_views_with_strides_are_shown(screen: Screen) -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[..., 0] = 250
    shown = screen.shows(replace(STATUS, images={"front": image[::2, ::-1, ::-1]}))
    assert (shown == (0, 0, 250)).all(axis=2).any()


@given(
    shapes=st.lists(st.tuples(st.integers(16, 2000), st.integers(16, 2000)), min_size=1, max_size=9),
    width=st.integers(200, 1200),
    height=st.integers(200, 900),
)
def test_tiles_keep_aspect_and_neither_overlap_nor_leave_the_area(
    shapes: list[tuple[int, int]], width: int, height: int
) -> None:
    area = pygame.Rect(7, 9, width, height)
    placed = tiles(shapes, area)
    assert len(placed) == len(shapes)
    for index, (tile, shape) in enumerate(zip(placed, shapes, strict=True)):
        assert area.contains(tile)
        assert tile.collidelist(placed[index + 1 :]) == -1
        scale = tile.width / shape[0]
        assert abs(tile.height - scale * shape[1]) <= 1.0 + shape[1] / shape[0]


def test_a_machine_without_a_display_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(BadInputError) as refusal, OperatorWindow(Keyboard()):
        pass
    text = str(refusal.value)
    assert text.startswith("operator window: cannot open a display (x11 not available; SDL_VIDEODRIVER=x11); ")
    assert "SDL_VIDEODRIVER=dummy" in text
    assert "\n" not in text


def test_a_window_that_nobody_can_see_is_refused_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDL_VIDEODRIVER")
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setattr(pygame.display, "init", lambda: None)
    monkeypatch.setattr(pygame.display, "get_driver", lambda: "offscreen")
    with pytest.raises(BadInputError, match="no X11 or Wayland display found"), OperatorWindow(Keyboard()):
        pass


def test_sdl_is_not_asked_where_there_is_no_desktop(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadInputError, match="no X11 or Wayland display found"), OperatorWindow(Keyboard()):
        pass
    assert capfd.readouterr().err == ""  # libraries beneath SDL would add a line of their own


def test_a_device_that_is_not_there_closes_the_window_again() -> None:
    with pytest.raises(BadInputError, match="gamepad"), OperatorWindow(Gamepad(GamepadConfig(pad="Nobody's"))):
        pass
    assert not pygame.display.get_init()


def test_leaving_closes_the_window() -> None:
    with OperatorWindow(Keyboard()):
        assert pygame.display.get_init()
    assert not pygame.display.get_init()
