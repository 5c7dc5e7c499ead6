from __future__ import annotations

import numpy as np
import pytest

from calibration.board import BoardView
from calibration.rehearsal import seen_from
from calibration.view_change import is_new
from robot.geometry import pose
from tests.calibration_scenes import BOARD, NARROW, facing

Turn = tuple[float, float, float]


def view(distance_m: float = 0.5, tilt_deg: Turn = (0.0, 0.0, 0.0), right_m: float = 0.0, seed: int = 0) -> BoardView:
    T = pose(np.eye(3), np.array([right_m, 0.0, 0.0])) @ facing(distance_m, tuple(np.radians(tilt_deg)))  # type: ignore[arg-type]
    found = seen_from(NARROW, T, np.random.default_rng(seed), 0.3, BOARD)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "other",
    [
        view(right_m=0.04),
        view(distance_m=0.43),
        view(tilt_deg=(0.0, 0.0, 14.0)),
        view(tilt_deg=(20.0, 0.0, 0.0)),
        view(tilt_deg=(0.0, -20.0, 0.0)),
    ],
    ids=["moved", "nearer", "turned", "tilted", "tilted to the side"],
)
def test_a_board_that_moved_came_nearer_turned_or_tilted_is_a_new_view(other: BoardView) -> None:
    assert is_new(view(), other)
    assert is_new(other, view())


def test_tilting_further_is_new_too() -> None:
    assert is_new(view(tilt_deg=(20.0, 0.0, 0.0)), view(tilt_deg=(32.0, 0.0, 0.0)))


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_a_hands_tremor_are_nothing_new(seed: int) -> None:
    assert not is_new(view(), view(seed=seed + 1, right_m=0.002, tilt_deg=(1.0, -1.0, 1.0), distance_m=0.505))


def test_another_part_of_the_board_is_new() -> None:
    whole = view()
    half = slice(0, len(whole.ids) // 2)
    assert is_new(whole, BoardView(ids=whole.ids[half], pixels=whole.pixels[half], size=whole.size))
    most = slice(0, int(0.8 * len(whole.ids)))
    assert not is_new(whole, BoardView(ids=whole.ids[most], pixels=whole.pixels[most], size=whole.size))
