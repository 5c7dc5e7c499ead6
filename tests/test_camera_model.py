"""Lens models: derivatives, and the way back from pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from perception.camera_model import CameraModel
from tests.calibration_scenes import NARROW, WIDE

RATIONAL = CameraModel(
    kind="rational", width=640, height=480, fx=320.0, fy=321.0, cx=318.0, cy=243.0,
    distortion=(0.5, 0.1, 0.001, -0.002, 0.01, 0.9, 0.3, 0.02),
)  # fmt: skip
PINHOLE = CameraModel(kind="pinhole", width=640, height=480, fx=500.0, fy=500.0, cx=320.0, cy=240.0)
ALL = pytest.mark.parametrize("model", [NARROW, WIDE, RATIONAL, PINHOLE], ids=lambda model: model.kind)
POINTS = np.random.default_rng(0).normal(size=(20, 3)) * 0.3 + [0.0, 0.0, 1.2]


@ALL
def test_derivatives_are_those_of_the_projection(model: CameraModel) -> None:
    _, by_point, by_value = model.project_with_jacobian(POINTS)
    for column, step in enumerate(1e-6 * np.eye(3)):
        numeric = (model.project(POINTS + step) - model.project(POINTS - step)) / 2e-6
        assert np.abs(numeric - by_point[:, :, column]).max() < 1e-5
    for column, step in enumerate(1e-5 * np.eye(len(model.names))):
        up, down = model.with_values(model.values + step), model.with_values(model.values - step)
        assert np.abs((up.project(POINTS) - down.project(POINTS)) / 2e-5 - by_value[:, :, column]).max() < 1e-5


@ALL
def test_rays_lead_back_to_their_pixels(model: CameraModel) -> None:
    x, y = np.meshgrid(np.linspace(60.0, 580.0, 14), np.linspace(20.0, 460.0, 10))
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    rays = model.rays(pixels)
    assert np.isfinite(rays).all()
    again = model.project(np.concatenate([rays, np.ones((len(rays), 1))], axis=1))
    assert np.abs(again - pixels).max() < 1e-3


def test_where_a_lens_sees_nothing_there_is_no_ray() -> None:
    # 90 degrees from the axis of the equidistant lens, about 1.57 * 220 px from its middle
    assert np.isnan(WIDE.rays(np.array([[318.0 + 420.0, 243.0]]))).all()


def test_numbers_mean_what_they_mean_to_opencv() -> None:
    theirs, _ = cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), NARROW.matrix, np.array(NARROW.distortion))
    assert np.abs(NARROW.project(POINTS) - np.asarray(theirs).reshape(-1, 2)).max() < 1e-9


def test_a_wrong_number_of_coefficients_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"distortion has 3 numbers; brown takes 5 \(k1, k2, p1, p2, k3\)"):
        CameraModel.model_validate({**NARROW.model_dump(), "distortion": (0.1, 0.2, 0.3)})
