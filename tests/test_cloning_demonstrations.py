"""What is read off a demonstration in hindsight."""

import numpy as np

from policy.cloning_demonstrations import _hindsight

POSITION_M = np.cumsum(np.ones((10, 3)), axis=0)


def test_the_grasp_is_where_the_hand_closed_last_and_the_release_where_it_opened_after_that() -> None:
    closing = np.array([0, 1, 0, 0, 1, 1, 1, 0, 0, 0], bool)
    targets = _hindsight(POSITION_M, closing=closing)
    np.testing.assert_array_equal(targets[:5, :3], POSITION_M[4] - POSITION_M[:5])
    assert np.isnan(targets[5:, :3]).all()
    np.testing.assert_array_equal(targets[:7, 3:], POSITION_M[6] - POSITION_M[:7])
    assert np.isnan(targets[7:, 3:]).all()


def test_a_demonstration_that_begins_with_a_closed_hand_has_no_grasp_and_ends_where_it_ends() -> None:
    targets = _hindsight(POSITION_M, closing=np.ones(10, bool))
    assert np.isnan(targets[:, :3]).all()
    np.testing.assert_array_equal(targets[:, 3:], POSITION_M[-1] - POSITION_M)
