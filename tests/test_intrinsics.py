"""Lenses from views of the board: the truth lies in the stated intervals, and what cannot be known is refused."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.board import BoardView
from calibration.intrinsics import Intrinsics, calibrate, fit_kind, seed_lenses
from calibration.intrinsics_result import refusals
from calibration.rehearsal import seen_from
from perception.camera_model import CameraModel
from robot.errors import BadInputError
from tests.calibration_scenes import BOARD, NARROW, WIDE, facing, handheld_views


def worst_px(found: CameraModel, true: CameraModel, views: list[BoardView]) -> float:
    """Greatest difference, where corners were, of where the two lenses see the same directions."""
    pixels = np.concatenate([view.pixels for view in views])
    rays = true.rays(pixels)
    rays = rays[np.isfinite(rays).all(axis=1)]
    points = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    return float(np.quantile(np.linalg.norm(found.project(points) - true.project(points), axis=1), 0.95))


@pytest.fixture(scope="module")
def wide() -> tuple[list[BoardView], Intrinsics]:
    views = handheld_views(WIDE, 20, seed=3)
    return views, calibrate(BOARD, views)


def test_a_wide_lens_is_recognised_and_recovered(wide: tuple[list[BoardView], Intrinsics]) -> None:
    views, found = wide
    assert found.fit.model.kind == "fisheye"
    assert found.tried["brown"] > 1.2 * found.tried["fisheye"]
    assert worst_px(found.fit.model, WIDE, views) < 1.2
    assert not refusals(found)


def test_held_out_error_is_the_noise_that_the_corners_have(wide: tuple[list[BoardView], Intrinsics]) -> None:
    _, found = wide
    assert found.fit.sigma_px == pytest.approx(0.3, rel=0.1)
    assert found.held_out.rms_px == pytest.approx(0.3 * np.sqrt(2.0), rel=0.15)


@pytest.mark.parametrize("true", [NARROW, WIDE], ids=["narrow", "wide"])
def test_intervals_hold_the_truth_as_often_as_they_say(true: CameraModel) -> None:
    inside, worst = [], 0.0
    for seed in range(5):
        views = handheld_views(true, 12, seed)
        found = fit_kind(BOARD, views, true.kind, seed_lenses(BOARD, views)[-1:])
        off = np.abs(found.model.values - true.values) / found.half_widths
        inside += (off <= 1.0).tolist()
        worst = max(worst, float(off.max()))
    assert np.mean(inside) >= 0.85  # of 40 to 45 parameters that move together
    assert worst < 2.5


def test_false_corners_are_left_out() -> None:
    views = handheld_views(NARROW, 16, seed=2)
    seeds = seed_lenses(BOARD, views)[:1]
    clean = fit_kind(BOARD, views, "brown", seeds)
    random = np.random.default_rng(0)
    for view in views[::2]:
        view.pixels[random.integers(len(view.ids))] += [25.0, -12.0]
    spoilt = fit_kind(BOARD, views, "brown", seeds)
    assert sum(int((~keep).sum()) for keep in spoilt.kept) == 8
    assert np.abs((spoilt.model.values - clean.model.values) / clean.half_widths).max() < 0.7


def test_a_board_that_was_never_tilted_is_refused_with_the_cure() -> None:
    random = np.random.default_rng(0)
    views = []
    for number in range(12):
        T = facing(0.3 + 0.02 * number)
        T[:2, 3] += random.uniform(-0.03, 0.03, 2)
        views.append(seen_from(NARROW, T, random, 0.3, BOARD))
    found = calibrate(BOARD, [view for view in views if view is not None], ["brown"])
    assert any("tilt the board" in line for line in refusals(found))


def test_what_is_held_out_above_a_pixel_is_refused() -> None:
    found = calibrate(BOARD, handheld_views(NARROW, 10, seed=0, noise_px=1.0), ["brown"])
    assert found.held_out.rms_px > 1.0
    assert refusals(found)[0].startswith(f"held-out error {found.held_out.rms_px:.2f} px (limit 1 px)")


def test_a_board_of_another_shape_is_refused() -> None:
    views = handheld_views(NARROW, 10, seed=0)
    bent = [
        BoardView(ids=view.ids, pixels=view.pixels + [3.0, 0.0] * np.sin(view.ids * 2.0)[:, None], size=view.size)
        for view in views
    ]
    assert any(line.startswith("held-out error") for line in refusals(calibrate(BOARD, bent, ["brown"])))


def test_too_few_views_say_how_many() -> None:
    with pytest.raises(BadInputError, match="5 usable views of the board; at least 6 are needed"):
        calibrate(BOARD, handheld_views(NARROW, 5, seed=0))
