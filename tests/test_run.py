import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policy.bundle import load_bundle
from policy.episode_header import LabelSource, Outcome
from policy.episode_reader import latest_revisions
from policy.provenance import collect_provenance
from policy.run_folder import RunFolder
from policy.weights import pack
from robot.clock import VirtualClock
from robot.errors import BadInputError
from robot.fr3 import FR3Kinematics
from robot.simulation.layout import Split
from robot.simulation.place_expert import PlaceStyle
from robot.simulation.place_layout import draw_place_layout
from robot.simulation.simulated_arm import SimulatedArm
from teleop.arbiter import Source
from teleop.rig import Rig
from teleop.run import Run
from teleop.run_options import OperatorKind, RunOptions
from teleop.simulated_operator import OperatorTraits, SimulatedOperator
from teleop.station import LoadedStation
from tests.tick_bench import DIMS, SCALE
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import tiny_station
from tests.tiny_weights import tiny_tensors

DEMONSTRATIONS = 10


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("run") / "bundle")


@pytest.fixture(scope="module")
def station(bundle: Path) -> LoadedStation:
    return tiny_station(bundle)


@pytest.fixture(scope="module")
def brief(bundle: Path) -> LoadedStation:
    """Episodes of ten ticks."""
    return tiny_station(bundle, ("episode.timeout_s", "0.5"))


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    yield
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_expert_succeeds_on_every_layout_through_the_loop(station: LoadedStation, tmp_path: Path) -> None:
    options = RunOptions(out=tmp_path / "run", operator="expert", seed=1, split=Split.SELECTION)
    with Run(station, VirtualClock(), options) as run:
        for _ in range(DEMONSTRATIONS):
            run.episode()
        run.finish()
        assert len(run.committed) == DEMONSTRATIONS
    episodes = latest_revisions(tmp_path / "run" / "episodes")
    assert [episode.outcome.outcome for episode in episodes] == [Outcome.SUCCESS] * DEMONSTRATIONS
    for episode in episodes:
        assert episode.outcome.label_source is LabelSource.OPERATOR_SIMULATED
        sources = episode.array("tick/source")
        assert set(sources.tolist()) == {Source.RESET, Source.HUMAN}
        drove = sources == Source.HUMAN
        human = episode.array("tick/human")[drove]
        np.testing.assert_array_equal(episode.array("actions")[drove], human)
        # what the expert did answers to the very state that is logged beside it, and not to that of the tick before
        steps_m = 0.02 * np.linalg.norm(human[:, :2], axis=1)
        near = int(np.argmax(steps_m < 0.9 * PlaceStyle().lateral_step_m))
        tcp_m = episode.array("tick/T_base_tcp")[drove][near, :2, 3]
        off_m = np.linalg.norm(tcp_m - draw_place_layout(Split.SELECTION, 1, episode.header.episode).block_xy_m)
        assert steps_m[near] == pytest.approx(PlaceStyle().gain * off_m, rel=0.02)


def test_a_rig_that_cannot_be_opened_to_its_end_leaves_nothing_open(
    station: LoadedStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[object] = []

    def refuse(*parts: object) -> None:
        raise BadInputError("no synchroniser")

    monkeypatch.setattr("teleop.rig.Synchroniser", refuse)
    monkeypatch.setattr(SimulatedArm, "__exit__", lambda *exception: left.append(exception[1]))
    with pytest.raises(BadInputError, match="no synchroniser"), Rig(station, VirtualClock(), seed=0):
        pass
    assert left == [BadInputError]


def test_a_run_is_gone_on_with_and_no_episode_is_written_over(brief: LoadedStation, tmp_path: Path) -> None:
    options = RunOptions(out=tmp_path / "run", operator="none", seed=1)
    with Run(brief, VirtualClock(), options) as run:
        run.episode()
    with pytest.raises(BadInputError, match="holds a run already"), Run(brief, VirtualClock(), options):
        pass
    with Run(brief, VirtualClock(), dataclasses.replace(options, resume=True)) as run:
        run.episode()
    episodes = latest_revisions(tmp_path / "run" / "episodes")
    assert [episode.header.episode for episode in episodes] == [0, 1]
    assert episodes[0].header.run_id == episodes[1].header.run_id
    assert episodes[0].header.layout != episodes[1].header.layout


def test_a_run_is_not_gone_on_with_by_another_rig(bundle: Path, brief: LoadedStation, tmp_path: Path) -> None:
    options = RunOptions(out=tmp_path / "run", operator="none", resume=True)
    with Run(brief, VirtualClock(), options) as run:
        run.episode()
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    other = tiny_station(bundle, ("name", '"other_rig"'))
    with (
        pytest.raises(BadInputError, match=r"are of station 'sim_place', .* is 'other_rig'; name a new folder"),
        Run(other, VirtualClock(), options),
    ):
        pass
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before
    tuned = tiny_station(bundle, ("episode.timeout_s", "0.6"))
    with Run(tuned, VirtualClock(), options) as run:
        assert run.folder.next_episode() == 1


@pytest.mark.parametrize("operator", ["none", "simulated", "expert"])
def test_stand_in_arms_again_after_a_fault_and_the_run_goes_on(
    brief: LoadedStation, tmp_path: Path, operator: OperatorKind
) -> None:
    outcomes = []
    with Run(brief, VirtualClock(), RunOptions(out=tmp_path / "run", operator=operator, seed=1)) as run:
        for episode in range(4):
            if episode == 1:
                assert isinstance(run.rig.arm, SimulatedArm)
                run.rig.arm.fail("reflex")
            result = run.episode()
            assert result is not None
            assert result.outcome is not None
            outcomes.append(result.outcome.outcome)
    assert outcomes == [Outcome.TIMEOUT, Outcome.ABORT, Outcome.TIMEOUT, Outcome.TIMEOUT]


def test_an_arm_that_presses_on_the_table_is_led_away(brief: LoadedStation, tmp_path: Path) -> None:
    with Run(brief, VirtualClock(), RunOptions(out=tmp_path / "run", operator="none", seed=1)) as run:
        run.episode()
        rig = run.rig
        assert rig.simulation is not None
        T_base_tcp = rig.arm.state().T_base_tcp.copy()
        q_rad = rig.arm.state().q_rad
        while rig.arm.state().force_n <= 2.0 * brief.station.safety.max_force_n:
            T_base_tcp[2, 3] -= 0.005
            assert T_base_tcp[2, 3] > -0.2
            solved = FR3Kinematics().solve(T_base_tcp, q_rad)
            assert solved is not None
            q_rad, due_s = solved, rig.clock.now_s() + 0.05
            rig.simulation.world.set_target(q_rad, 0.08, due_s)
            rig.clock.sleep_until(due_s)
        outcomes = [result.outcome.outcome for _ in range(3) if (result := run.episode()) and result.outcome]
    assert outcomes == [Outcome.ABORT, Outcome.TIMEOUT, Outcome.TIMEOUT]


@pytest.mark.parametrize("drives_through", [False, True])
def test_the_simulated_person_drives_through_where_the_run_says_so(
    brief: LoadedStation, tmp_path: Path, drives_through: bool
) -> None:
    options = RunOptions(out=tmp_path / "run", operator="simulated", drives_through=drives_through)
    with Run(brief, VirtualClock(), options) as run:
        assert isinstance(run._human, SimulatedOperator)
        assert run._human._traits == OperatorTraits(drives_through=drives_through)


def test_weights_are_given_by_message_and_checked(station: LoadedStation, bundle: Path, tmp_path: Path) -> None:
    def message(sha256: str) -> bytes:
        return pack(
            version=9, run_id="run-1", bundle_sha256=sha256, dims=DIMS, tensors=tiny_tensors(heads=0) | {"scale": SCALE}
        )

    with pytest.raises(BadInputError, match=r"weights to start from: refused .*trained on bundle .*with --weights$"):
        Run(
            station, VirtualClock(), RunOptions(out=tmp_path / "wrong", operator="none", weights=message("a" * 64))
        ).__enter__()
    with Run(station, VirtualClock(), RunOptions(out=tmp_path / "zero", operator="none")) as run:
        assert run.weights.version == 0
        assert not run.weights.head.residual(*(np.ones(size, np.float32) for size in (6, 4, 5))).any()
        sha256 = run.rig.bundle.sha256
    options = RunOptions(out=tmp_path / "right", operator="none", weights=message(sha256))
    with Run(station, VirtualClock(), options) as run:
        assert run.weights.version == 9
        assert RunFolder.open(tmp_path / "right").weights_sha256(9) == run.weights.sha256


def test_a_run_whose_weights_are_beyond_a_bound_that_was_lowered_says_what_to_name_instead(
    bundle: Path, tmp_path: Path
) -> None:
    station = tiny_station(bundle, ("residual.scale", "[0.1, 0.1, 0.1, 0.0, 0.0]"))
    options = RunOptions(out=tmp_path / "run", operator="none", learner="tcp://127.0.0.1:1", resume=True)
    folder = RunFolder.create(options.out, collect_provenance(VirtualClock(), operator=None), resume=True)
    tensors = tiny_tensors(heads=0) | {"scale": SCALE}
    message = pack(
        version=9, run_id=folder.run_id, bundle_sha256=load_bundle(bundle, "cpu").sha256, dims=DIMS, tensors=tensors
    )
    folder.note_in_force(folder.store_weights(9, message))
    with pytest.raises(BadInputError, match=r"scale is \(0.4, .* name others with --weights$"):
        Run(station, VirtualClock(), options).__enter__()
