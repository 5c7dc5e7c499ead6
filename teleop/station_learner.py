"""The learner that belongs to a station: what it is told, and how a supervisor starts one for a run of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from policy.bundle import load_bundle
from policy.hindsight import LevelMotion
from policy.learner_config import LearnerConfig
from policy.learner_method import read_method, told
from policy.learner_settings import FreeRunning, LearnerSettings, LockStep
from policy.manifest_file import read_manifest
from policy.observation_history import history_of
from policy.weights import Expected
from robot.errors import BadInputError
from teleop.rig_misfits import residual_misfits
from teleop.station import LoadedStation
from teleop.supervision import ChildPlan

_LOADING_S = 40.0  # torch, and a checkpoint


def check_learnable(loaded: LoadedStation) -> dict[str, JsonValue]:
    """Return the fields of its method that a learner for this station is told.

    Raises:
        BadInputError: the station has none or one that is not for its bundle, or says something of the algorithm that
            is not there.
    """
    station = loaded.station
    if station.residual is None:
        raise BadInputError(f"station {loaded.path}: has no [residual] to learn; add its scale")
    manifest, _ = read_manifest(loaded.bundle_path)
    if misfits := residual_misfits(loaded, manifest):
        raise BadInputError(misfits[0])
    learning, residual, where = station.learner, station.residual, f"station {loaded.path}: learner"
    gripper = Expected.of(manifest, residual).gripper
    binary = manifest.action.dims.index("gripper") if manifest.action.gripper == "binary" else None
    algorithm = told(
        learning.method, scale=residual.scale, gate=residual.gate, gripper=gripper, where=where, binary=binary
    )
    if manifest.picture_shape is not None:
        if learning.method not in ("handrail", "hg_dagger"):
            raise BadInputError(
                f"{where}: method {learning.method!r} does not look at the pictures that the features of bundle "
                f"{manifest.name!r} end with; set policy.bundle to the one that it was made of"
            )
        algorithm["pictures"] = [*manifest.picture_shape]
    algorithm |= learning.algorithm
    config, size = read_method(learning.method, algorithm, where), manifest.action.size
    if isinstance(config, LearnerConfig) and config.pictures != manifest.picture_shape:
        raise BadInputError(
            f"{where}: algorithm.pictures is {config.pictures}, the features of bundle {manifest.name!r} end with "
            f"{manifest.picture_shape or 'none'}; leave it out"
        )
    scale = config.scale
    if len(scale) != size and (scale or learning.method != "rlpd"):
        raise BadInputError(
            f"{where}: algorithm.scale has {len(scale)} values (allowed {size}, one per action dimension of bundle "
            f"{manifest.name!r}); leave it to residual.scale"
        )
    return algorithm


def learner_settings(
    loaded: LoadedStation,
    *,
    state_dir: Path,
    run_id: str,
    seed: int,
    lock_step: bool,
    endpoint: str | None,
    demonstrations: Sequence[Path] = (),
) -> LearnerSettings:
    """What a learner for this station is told, with folders of demonstrations to start from.

    Raises:
        BadInputError: the station has no residual, a wrong setting of the algorithm, or a bad bundle.
    """
    station, algorithm = loaded.station, check_learnable(loaded)
    bundle = load_bundle(loaded.bundle_path, station.policy.provider, station.policy.threads)
    manifest, learning = bundle.manifest, station.learner
    return LearnerSettings(
        state_dir=state_dir,
        run_id=run_id,
        bundle_sha256=bundle.sha256,
        feature_size=manifest.feature_size,
        proprio_size=manifest.proprio_size,
        action_size=manifest.action.size,
        history=history_of(manifest, station.residual),
        action_names=manifest.action.dims,
        endpoint=endpoint,
        seed=seed,
        schedule=LockStep(updates_per_episode=learning.updates_per_episode) if lock_step else FreeRunning(),
        n_step=learning.n_step,
        discount=learning.discount,
        doubt_ticks=round(learning.doubt_s / station.period_s),
        cut_at_handover=learning.cut_at_handover,
        hindsight=LevelMotion.of(manifest.action) if learning.hindsight and learning.method == "handrail" else None,
        batch_size=learning.batch_size,
        shown_share=learning.shown_share,
        min_transitions=learning.min_transitions,
        method=learning.method,
        algorithm=algorithm,
        demonstrations=tuple(demonstrations),
    )


class OwnLearner:
    """A learner that lives as long as the run, and is started again where it left off when it dies.

    Attributes:
        endpoint: where it listens, a socket in a folder of its own.
    """

    def __init__(self, loaded: LoadedStation, *, state_dir: Path, run_id: str, seed: int) -> None:
        self._loaded, self._state_dir, self._run_id, self._seed = loaded, state_dir, run_id, seed

    def __enter__(self) -> Self:
        """Write its settings. Raises BadInputError when the station has nothing to learn or nothing can be written."""
        self._folder = tempfile.TemporaryDirectory(prefix="handrail-")
        self.endpoint = f"ipc://{self._folder.name}/learner"
        settings = learner_settings(
            self._loaded,
            state_dir=self._state_dir,
            run_id=self._run_id,
            seed=self._seed,
            lock_step=False,
            endpoint=self.endpoint,
        )
        self._settings = self._state_dir / "settings.json"
        try:
            self._state_dir.mkdir(parents=True, exist_ok=True)
            self._settings.write_text(settings.model_dump_json(indent=2))
        except OSError as error:
            raise BadInputError(f"{self._state_dir}: cannot be written to ({error.strerror}); choose another") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    @property
    def plan(self) -> ChildPlan:
        """How the supervisor starts it."""
        return ChildPlan(
            name="learner",
            module="policy.learner_process",
            arguments=("--settings", str(self._settings.resolve())),
            restart=True,
            silence_s=_LOADING_S,
        )
