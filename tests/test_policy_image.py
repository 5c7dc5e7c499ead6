from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.policy_image import crop_box, in_order, policy_image


def random_picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_picture_of_the_size_wanted_is_handed_on_itself() -> None:
    rgb = random_picture(48, 64)
    assert policy_image(rgb, (48, 64)) is rgb


def test_each_pixel_is_the_mean_of_the_area_that_it_covers() -> None:
    rgb = random_picture(48, 96)
    image = policy_image(rgb, (12, 12))
    means = rgb[:, 24:72].reshape(12, 4, 12, 4, 3).mean(axis=(1, 3))
    assert image.shape == (12, 12, 3)
    assert image.dtype == np.uint8
    assert np.abs(image - means).max() <= 1.0  # rounded once a direction


def test_where_the_areas_end_within_pixels_each_pixel_belongs_to_the_area_that_its_middle_lies_in() -> None:
    rgb = np.zeros((7, 7, 3), np.uint8)
    rgb[:, 2:5] = np.array([30, 60, 90], np.uint8)[:, None]
    image = policy_image(rgb, (3, 3))
    np.testing.assert_array_equal(image[:, 1], np.full((3, 3), 60))
    assert not image[:, [0, 2]].any()


@pytest.mark.parametrize(
    ("full", "size", "box"),
    [
        ((480, 640), (84, 84), (80, 0, 560, 480)),
        ((640, 480), (84, 84), (0, 80, 480, 560)),
        ((480, 640), (120, 160), (0, 0, 640, 480)),
        ((480, 640), (90, 160), (0, 60, 640, 420)),
    ],
)
def test_what_is_cut_off_is_the_same_on_both_sides(
    full: tuple[int, int], size: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    assert crop_box(full, size) == pytest.approx(box)


@given(
    st.tuples(st.integers(8, 60), st.integers(8, 60)), st.tuples(st.floats(0.15, 1.0), st.floats(0.15, 1.0)),
    st.integers(0, 255),
)  # fmt: skip
def test_any_smaller_size_is_given_and_an_even_colour_stays(
    full: tuple[int, int], share: tuple[float, float], level: int
) -> None:
    size = max(1, round(full[0] * share[0])), max(1, round(full[1] * share[1]))
    image = policy_image(np.full((*full, 3), level, np.uint8), size)
    assert image.shape == (*size, 3)
    assert (image == level).all()


def test_the_same_picture_gives_the_same_image() -> None:
    rgb = random_picture(480, 640)
    np.testing.assert_array_equal(policy_image(rgb, (84, 84)), policy_image(rgb.copy(), (84, 84)))
    assert (policy_image(rgb, (84, 84)) != policy_image(random_picture(480, 640, 1), (84, 84))).any()


def test_a_window_is_cut_out_where_the_shares_say() -> None:
    rgb = random_picture(40, 80)
    image = policy_image(rgb, (10, 20), (0.25, 0.5, 0.75, 1.0))
    means = rgb[20:40, 20:60].reshape(10, 2, 20, 2, 3).mean(axis=(1, 3))
    assert np.abs(image - means).max() <= 1.0
    assert crop_box((40, 80), (10, 20), (0.25, 0.5, 0.75, 1.0)) == (20.0, 20.0, 60.0, 40.0)


def test_a_window_of_another_aspect_ratio_is_averaged_in_each_direction_by_itself() -> None:
    rgb = random_picture(40, 80)
    image = policy_image(rgb, (10, 10), (0.0, 0.0, 1.0, 1.0))
    np.testing.assert_allclose(image, rgb.reshape(10, 4, 10, 8, 3).mean(axis=(1, 3)), atol=1.0)


def test_colours_are_put_in_the_policys_order_and_back() -> None:
    rgb = random_picture(8, 9)
    bgr = in_order(rgb, "bgr")
    assert in_order(rgb, "rgb") is rgb
    assert bgr.flags.c_contiguous
    np.testing.assert_array_equal(bgr[..., 0], rgb[..., 2])
    np.testing.assert_array_equal(in_order(bgr, "bgr"), rgb)
