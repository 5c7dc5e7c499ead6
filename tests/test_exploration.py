import numpy as np
import pytest
from numpy.typing import NDArray

from teleop.exploration import Exploration
from teleop.station import ExplorationConfig

SCALE = np.array([0.4, 0.4, 0.3, 0.0, 0.0], np.float32)


def noise_of(exploration: Exploration, episode: int, ticks: int) -> NDArray[np.float32]:
    exploration.begin_episode(episode)
    return np.stack([exploration.draw(SCALE, active=True)[0] for _ in range(ticks)])


def constant(**fields: float) -> Exploration:
    return Exploration(ExplorationConfig(start=0.5, end=0.5, **fields), seed=3)  # type: ignore[arg-type]


def test_noise_is_off_unless_asked_for() -> None:
    noise, passes = Exploration(ExplorationConfig(), seed=0).draw(SCALE, active=True)
    assert not noise.any()
    assert not passes
    assert noise.dtype == np.float32


def test_no_noise_and_no_forced_pass_during_a_reset() -> None:
    exploration = constant(gate_pass_share=1.0)
    exploration.begin_episode(0)
    noise, passes = exploration.draw(SCALE, active=False)
    assert not noise.any()
    assert not passes


def test_an_episode_has_its_own_stream_whatever_came_before() -> None:
    first, second = constant(), constant()
    noise_of(first, 0, 37)
    np.testing.assert_array_equal(noise_of(first, 4, 20), noise_of(second, 4, 20))
    assert not np.array_equal(noise_of(first, 5, 20), noise_of(second, 4, 20))


def test_spread_is_the_share_of_the_scale_and_leaves_unscaled_dimensions_alone() -> None:
    noise = noise_of(constant(), 0, 6000)
    np.testing.assert_allclose(noise.std(axis=0)[:3], 0.5 * SCALE[:3], rtol=0.1)
    assert not noise[:, 3:].any()


def test_noise_is_correlated_from_tick_to_tick() -> None:
    noise = noise_of(constant(), 0, 6000)[:, 0]
    assert np.corrcoef(noise[1:], noise[:-1])[0, 1] == pytest.approx(0.8, abs=0.04)


def test_spread_falls_to_its_end_over_the_ticks_of_the_run() -> None:
    exploration = Exploration(ExplorationConfig(start=1.0, end=0.1, until_tick=2000), seed=3)
    early = noise_of(exploration, 0, 1000)[:, 0].std()
    noise_of(exploration, 1, 1000)
    late = noise_of(exploration, 2, 2000)[:, 0].std()
    assert early > 5.0 * late
    assert late == pytest.approx(0.1 * SCALE[0], rel=0.2)


def test_bursts_take_their_share_of_the_ticks_and_last_as_long_as_said() -> None:
    bursting = noise_of(constant(burst_share=0.25, burst_ticks=6), 0, 20000)[:, 0] != 0.0
    assert bursting.mean() == pytest.approx(0.25, abs=0.04)
    starts = np.count_nonzero(bursting[1:] & ~bursting[:-1])
    assert bursting.sum() / starts == pytest.approx(6.0, rel=0.15)


def test_scheduled_share_of_closed_gates_passes() -> None:
    exploration = constant(gate_pass_share=0.3)
    exploration.begin_episode(0)
    passes = [exploration.draw(SCALE, active=True)[1] for _ in range(4000)]
    assert np.mean(passes) == pytest.approx(0.3, abs=0.03)
