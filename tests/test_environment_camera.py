"""What an environment renders, as a camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perception.camera import Camera
from perception.config import EnvironmentCameraConfig
from perception.environment_camera import EnvironmentCamera
from policy.episode_reader import latest_revisions
from robot.clock import VirtualClock
from robot.environment.environment import Environment
from robot.errors import BadInputError
from teleop.replay import verify_run
from teleop.run import Run
from teleop.run_options import RunOptions
from tests.contracts import CameraContract, newest
from tests.environment_bench import PANDA, arm_config, panda_station
from tests.tiny_bundle import make_tiny_bundle

OPTIONS = {"render_width": 48, "render_height": 40}


@pytest.fixture(scope="module")
def panda() -> Iterator[Environment]:
    config = arm_config(PANDA, options=OPTIONS)
    with Environment(config, "station s", rate_hz=25.0, rendered=True) as environment:
        yield environment


def camera(panda: Environment, *, height: int = 32, width: int = 40, begin_s: float = 100.0) -> EnvironmentCamera:
    config = EnvironmentCameraConfig(kind="gymnasium", name="view", height=height, width=width)
    return EnvironmentCamera(config, panda, VirtualClock(begin_s))


class TestEnvironmentCamera(CameraContract):
    @pytest.fixture(autouse=True)
    def _environment(self, panda: Environment) -> None:
        panda.reset(0)
        self.environment = panda

    def make(self) -> Camera:
        return camera(self.environment, begin_s=self.begin_s)

    def let_run(self, now_s: float) -> None:
        if round(now_s / 0.05) % 20 == 10 and not self.environment.done:
            self.environment.step(np.full(3, 1.0))


def test_a_picture_shows_what_a_step_changed_and_is_not_made_again_without_one(panda: Environment) -> None:
    panda.reset(0)
    with camera(panda) as view:
        first, same = newest(view, 100.0), newest(view, 100.04)
        assert first is not None
        assert same is not None
        assert same.frame_id == first.frame_id + 1
        assert same.rgb is first.rgb
        panda.step(np.array([1.0, 1.0, -1.0]))
        after = newest(view, 100.08)
        assert after is not None
        assert not np.array_equal(after.rgb, first.rgb)


def test_pictures_smaller_than_the_policys_are_refused(panda: Environment) -> None:
    with pytest.raises(BadInputError, match="renders 48x40, less than the 64x40"), camera(panda, height=40, width=64):
        pass


def test_a_run_with_a_view_logs_it_and_is_replayed(tmp_path: Path) -> None:
    view = '[{ kind = "gymnasium", name = "view", height = 32, width = 40 }]'
    limits = ("arm.options", "{ max_episode_steps = 4, render_width = 48, render_height = 40 }")
    station = panda_station(tmp_path, limits, ("camera", view))
    make_tiny_bundle(
        tmp_path / "bundle",
        cameras={"view": (32, 40)},
        proprio={"tcp_position_m": 3},
        dims=("x", "y", "z"),
        rate_hz=25.0,
    )
    with Run(station, VirtualClock(), RunOptions(out=tmp_path / "run", operator="none", seed=0)) as run:
        run.episode()
        run.finish()
    (episode,) = latest_revisions(tmp_path / "run" / "episodes")
    pictures = episode.array("obs/view_image")
    assert pictures.shape == (4, 32, 40, 3)
    assert not np.array_equal(pictures[0], pictures[-1])
    assert verify_run(tmp_path / "run", jobs=1, progress=lambda path: None).mismatches == 0
