"""Success against environment steps, interventions and time: our method, published recipes, ablations; one JSON line.

    .venv/bin/python benchmarks/bench_sample_efficiency.py --out runs/efficiency --seeds 0 1 2 3 4
    .venv/bin/python benchmarks/bench_sample_efficiency.py --out runs/efficiency --methods handrail resfit --seeds 0
    .venv/bin/python benchmarks/bench_sample_efficiency.py --out runs/efficiency --list

A cell is one training run: task, method, seed, length. Each is trained in lock-step up to `--steps` ticks, resets
included, and the weights that were in force at each of `--marks` and at the end are measured without a person: on
selection layouts, from `--held-out-from` on and at the end on held-out ones. A cell is a JSON file in `--out`; cells
that are there are not made again, so an interrupted benchmark goes on, and more seeds can be added.
`benchmarks/plot_sample_efficiency.py` draws what is there.

The published systems start from demonstrations, so the recipes after them are given `--demonstrations` of the scripted
expert, recorded once per task with the cameras as they are in training, on other layouts. Their ticks are not among the
steps. Handrail is given none, but as `handrail_shown`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))

from environment import cli

from benchmarks.machine import cpu_name
from policy.blank_bundle import write_blank_bundle
from policy.bundle import Bundle, load_bundle
from policy.episode_header import Outcome
from policy.episode_reader import latest_revisions
from policy.run_folder import RunFolder
from policy.wilson import wilson95
from robot.clock import VirtualClock
from robot.simulation.layout import Split
from teleop.episode_result import EpisodeResult
from teleop.evaluation import evaluate
from teleop.run import Run
from teleop.run_options import OperatorKind, RunOptions
from teleop.station import LoadedStation, load_station
from teleop.statistics import quarter_means
from teleop.training import train_online

EVERYTHING = 100_000  # episodes: the steps end it
SELECTION_SEED, HELD_OUT_SEED = 100, 0
DEMONSTRATION_SEED = 1000  # other layouts than those of any run's episodes


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is compared.

    Attributes:
        says: one line for the plots.
        overrides: of the station.
        operator: who stands beside the robot.
        alone: no base; the policy is learned from scratch.
        shown: starts from demonstrations.
        drives_through: the simulated person, see `teleop.simulated_operator.OperatorTraits`.
    """

    says: str
    overrides: tuple[tuple[str, str], ...] = ()
    operator: OperatorKind = "simulated"
    alone: bool = False
    shown: bool = False
    drives_through: bool = False


def _algorithm(name: str, value: str) -> tuple[str, str]:
    return f"learner.algorithm.{name}", value


# ResFiT's update-to-data ratio of 4 on its episodes of 100 ticks, and 2 on those from scratch, which are longer; they
# begin with the first episode, on the demonstrations
_FROM_DEMONSTRATIONS = (
    ("learner.updates_per_episode", "400"),
    ("learner.min_transitions", "1000"),
)
_WIDE = _algorithm("hidden", "[256, 256]")
# from scratch, two critics came to believe in 1.25 of a return of at most 1 after 3,400 steps
_BOUNDED = _algorithm("value_bounds", "[0.0, 1.0]")
# ResFiT's ten critics of (1024, 1024) make 2 updates a second on two cores: the recipe runs at a size that ends
_RESFIT = (
    ("learner.method", "resfit"),
    ("exploration.start", "0.1"),
    ("exploration.end", "0.05"),
    ("exploration.burst_share", "1.0"),
    _algorithm("critics", "4"),
    _algorithm("hidden", "[256, 256]"),
    # some eight episodes: what an actor that slow learns from critics that know nothing stays with it
    _algorithm("warm_up", "3000"),
    # what learns from the value alone hurries where a tick costs 2 % of it
    ("learner.discount", "0.99"),
    _BOUNDED,
    *_FROM_DEMONSTRATIONS,
)
METHODS = {
    "handrail": Method(says="Handrail"),
    "resfit": Method(says="ResFiT recipe, no person", overrides=_RESFIT, operator="none", shown=True),
    "resfit_fast": Method(
        says="ResFiT recipe, no person, actor rate 3e-5",
        overrides=(*_RESFIT, _algorithm("actor_rate", "3e-5"), _algorithm("critic_rate", "3e-4")),
        operator="none",
        shown=True,
    ),
    "hilserl": Method(
        says="HIL-SERL recipe: RLPD from scratch with interventions",
        # by the actor's own spread
        overrides=(
            ("learner.method", "rlpd"),
            ("exploration.start", "1.0"),
            ("exploration.end", "1.0"),
            # it learns where the table is by pressing on it
            ("safety.max_force_n", "500.0"),
            # the person needs time to drive through what it did not even begin
            ("episode.timeout_s", "13.5"),
            _BOUNDED,
            *_FROM_DEMONSTRATIONS,
        ),
        alone=True,
        shown=True,
        drives_through=True,
    ),
    "handrail_shown": Method(says="Handrail, from the same demonstrations", shown=True),
    "hg_dagger_shown": Method(
        says="HG-DAgger on the same base, from demonstrations",
        overrides=(("learner.method", "hg_dagger"),),
        shown=True,
    ),
    "hg_dagger": Method(says="HG-DAgger on the same base", overrides=(("learner.method", "hg_dagger"),)),
    "gate": Method(says="with the value gate", overrides=(("residual.gate", "true"),)),
    "no_layer_norm": Method(says="no LayerNorm", overrides=(_algorithm("layer_norm", "false"),)),
    "wide": Method(says="hidden layers of 256", overrides=(_WIDE, _algorithm("products", '"float32"'))),
    "wide_rounded": Method(
        says="hidden layers of 256, products in bfloat16", overrides=(_WIDE, _algorithm("products", '"bfloat16"'))
    ),
    "no_symmetric": Method(says="no symmetric sampling", overrides=(("learner.shown_share", "0.0"),)),
    "no_cut": Method(says="windows run over handovers", overrides=(("learner.cut_at_handover", "false"),)),
    "clipped": Method(says="out of reach clipped", overrides=(_algorithm("clip_unreachable", "true"),)),
    "no_hindsight": Method(says="corrections alone, no hindsight", overrides=(("learner.hindsight", "false"),)),
    "no_value": Method(says="no value in the actor", overrides=(_algorithm("q_weight", "0.0"),)),
    "no_approval": Method(says="no approval", overrides=(_algorithm("approval_weight", "0.0"),)),
    "no_features": Method(says="blind: no image features", overrides=(_algorithm("use_features", "false"),)),
}


@dataclass(kw_only=True)
class _Steps:
    """Environment steps by episode."""

    total: int = 0
    ends: list[int] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    _started_s: float = field(default_factory=time.perf_counter)

    def __call__(self, number: int, result: EpisodeResult, news: str) -> None:
        self.total += result.ticks + result.reset_ticks
        self.ends.append(self.total)
        self.wall_s.append(round(time.perf_counter() - self._started_s, 1))


def cell(loaded: LoadedStation, method: Method, seed: int, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one run; its folder is removed unless it is to be kept."""
    shutil.rmtree(out, ignore_errors=True)  # of a benchmark that was interrupted
    steps = _Steps()
    shown = demonstrations(loaded, method, out.parent, options.demonstrations) if method.shown else None
    trained = train_online(
        loaded,
        VirtualClock(),
        out=out,
        episodes=EVERYTHING,
        seed=seed,
        operator=method.operator,
        progress=steps,
        max_steps=options.steps,
        demonstrations=[shown.folder] if shown else [],
        drives_through=method.drives_through,
    )
    interventions = [float(result.interventions) for result in trained.results]
    curve = []
    for mark in options.marks:
        ended = sum(end <= mark for end in steps.ends)
        begun = min(len(steps.ends), 1 + sum(end < mark for end in steps.ends))
        held_out = mark >= min(options.held_out_from, options.marks[-1])
        layouts = options.held_out if held_out else options.layouts
        measured = evaluate(
            loaded,
            weights=weights_after(trained.run, ended),
            episodes=layouts,
            seed=HELD_OUT_SEED if held_out else SELECTION_SEED,
            split=Split.HELD_OUT if held_out else Split.SELECTION,
        )
        quarters = quarter_means(interventions[:begun]) or (math.nan, math.nan)
        point = {
            "steps": mark,
            "split": "held_out" if held_out else "selection",
            "training_episodes": begun,
            "training_wall_s": steps.wall_s[begun - 1],
            "interventions": [round(mean, 3) for mean in quarters],
        }
        curve.append(point | measured.summary())
        print(f"  {mark} steps: {measured.successes} of {layouts}", file=sys.stderr, flush=True)
    document = {
        "curve": curve,
        "episodes": len(trained.results),
        "env_steps": trained.env_steps,
        "interventions": [int(count) for count in interventions],
        "episode_ends": steps.ends,
        "outcomes": [result.outcome.outcome.value if result.outcome else None for result in trained.results],
        "human_ticks": [result.human_ticks for result in trained.results],
        "demonstrations": shown.count if shown else 0,
        "demonstrations_succeeded": shown.succeeded if shown else 0,
        "demonstration_ticks": shown.ticks if shown else 0,
        "weights_refused": trained.refused,
        "learner": trained.learner.get("figures"),
        "training_wall_s": round(trained.wall_s, 1),
        "updates": trained.learner.get("updates"),
        "load": round(os.getloadavg()[0], 1),
    }
    if not options.keep:
        shutil.rmtree(out)
    return document


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Demonstrations of a task."""

    folder: Path
    count: int
    succeeded: int
    ticks: int


def demonstrations(loaded: LoadedStation, method: Method, where: Path, count: int) -> Shown:
    """Return `count` demonstrations by the scripted expert; what is there is not recorded again.

    The base runs in shadow, so that its action is there beside the expert's; from scratch it is one that holds still.
    """
    out = where / f"{loaded.station.name}-{'alone' if method.alone else 'base'}.shown"
    options = RunOptions(out=out, operator="expert", seed=DEMONSTRATION_SEED, split=Split.TRAINING, resume=True)
    missing = count - len(list(latest_revisions(out / "episodes"))) if out.exists() else count
    if missing > 0:
        with Run(loaded, VirtualClock(), options) as run:
            for _ in range(missing):
                run.episode()
            run.finish()
    episodes = list(latest_revisions(out / "episodes"))
    return Shown(
        folder=(out / "episodes").resolve(),
        count=len(episodes),
        succeeded=sum(episode.labels[-1].outcome is Outcome.SUCCESS for episode in episodes),
        ticks=sum(len(episode.arrays(["rewards"])["rewards"]) for episode in episodes),
    )


def weights_after(run: RunFolder, episodes: int) -> bytes | None:
    """Return the weights in force in the episode that follows `episodes` episodes; None for the base alone.

    In lock-step the version after k episodes is k, and is taken one episode later.
    """
    found = {int(path.name.partition("-")[0]): path for path in (run.path / "weights").glob("[0-9]*-*")}
    fitting = [version for version in found if version <= episodes - 1]
    return found[max(fitting)].read_bytes() if fitting else None


def blank_of(own: LoadedStation, bundle: Bundle, folder: Path) -> Path:
    """Return a bundle that holds still and shows what `bundle` does; one in `folder` stays, for what was shown on it.

    Made anew it would have another hash, and no learner would take the demonstrations that are there.
    """
    if folder.exists() and load_bundle(folder, "cpu").manifest.encode == bundle.manifest.encode:
        return folder
    limits = own.station.safety
    return write_blank_bundle(
        folder,
        name="blank",
        rate_hz=own.station.loop.rate_hz,
        cameras=bundle.manifest.cameras,
        calibration=bundle.manifest.calibration,
        gripper_open_m=limits.gripper_max_m,
        gripper_closed_m=limits.gripper_min_m,
        encode_of=bundle,
    )


def station_for(path: Path, method: Method, options: argparse.Namespace) -> LoadedStation:
    """Return the station as a method has it."""
    overrides = [*method.overrides, *options.set]
    if method.alone:
        own = load_station(path, [])
        bundle = load_bundle(own.bundle_path, "cpu")
        blank = blank_of(own, bundle, options.out / f"{path.stem}-blank")
        dims = bundle.manifest.action.dims
        residual = own.station.residual
        # what the residual on the base need not move either, it need not learn; the gripper it must
        needed = [name == "gripper" or residual is None or residual.scale[i] > 0.0 for i, name in enumerate(dims)]
        whole = str([float(need) for need in needed])
        overrides += [("policy.bundle", str(blank.resolve())), ("residual.scale", whole)]
    return load_station(path, overrides)


def collected(out: Path) -> list[dict[str, Any]]:
    """Return the cells that are there."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("*.cell.json"))]


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """What the seeds say at each mark, per task and method.

    Success with Wilson's interval of all layouts together; interventions an episode in the first and the last quarter
    of the episodes up to there; seconds from the start of the training.
    """
    groups: dict[str, dict[str, Any]] = {}
    for task, method in sorted({(cell["task"], cell["method"]) for cell in cells}):
        mine = [cell for cell in cells if (cell["task"], cell["method"]) == (task, method)]
        marks: dict[str, Any] = {}
        for mark in sorted({point["steps"] for one in mine for point in one["curve"]}):
            points = [point for one in mine for point in one["curve"] if point["steps"] == mark]
            successes, episodes = (sum(point[name] for point in points) for name in ("successes", "episodes"))
            rates = [point["rate"] for point in points]
            marks[str(mark)] = {"mean": round(statistics.fmean(rates), 4), "least": min(rates), "seeds": len(rates)}
            marks[str(mark)]["wilson95"] = [round(bound, 4) for bound in wilson95(successes, episodes)]
            quarters = zip(*(point["interventions"] for point in points), strict=True)
            marks[str(mark)]["interventions"] = [round(statistics.fmean(quarter), 3) for quarter in quarters]
            marks[str(mark)]["training_wall_s"] = [point["training_wall_s"] for point in points]
        groups.setdefault(task, {})[method] = {
            "says": METHODS[method].says,
            "success": marks,
        }
    return groups


def main() -> int:
    """Make the cells that are missing, and print what all of them say."""
    options = _options()
    if options.list:
        print("\n".join(f"{name:15} {method.says}" for name, method in METHODS.items()))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    options.marks = sorted({mark for mark in options.marks if mark <= options.steps} | {options.steps})
    for seed in options.seeds:
        for task in options.stations:
            for name in options.methods:
                where = options.out / f"{task.stem}-{name}-{seed}-{options.steps}.cell.json"
                if where.exists():
                    continue
                print(f"{task.stem} {name} seed {seed}", file=sys.stderr, flush=True)
                started_s = time.perf_counter()
                loaded = station_for(task, METHODS[name], options)
                made = cell(loaded, METHODS[name], seed, where.with_suffix(".run"), options)
                made |= {
                    "task": task.stem,
                    "method": name,
                    "seed": seed,
                    "steps": options.steps,
                    "overrides": options.set,
                }
                made["wall_s"] = round(time.perf_counter() - started_s, 1)
                partial = where.with_suffix(".partial")
                partial.write_text(json.dumps(made))
                partial.replace(where)
    cells = collected(options.out)
    machine = {"cpu": cpu_name(), "cores": os.cpu_count()}
    document = {"benchmark": "sample_efficiency", "tasks": summary(cells), "cells": cells, "machine": machine}
    print(json.dumps(document))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [cli.STATIONS / "sim_place.toml"]
    parser.add_argument("--stations", type=Path, nargs="+", default=default, help="tasks")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS], metavar="METHOD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=10_000, help="of each training, resets included")
    parser.add_argument("--marks", type=int, nargs="+", default=[2_500, 5_000, 7_500], help="measured at these, too")
    parser.add_argument("--layouts", type=int, default=60, help="selection layouts of each mark")
    parser.add_argument("--held-out-from", type=int, default=10_000, help="marks from here on are measured on those")
    parser.add_argument("--held-out", type=int, default=200, help="held-out layouts of each such mark")
    parser.add_argument("--demonstrations", type=int, default=20, help="for the methods that start from them")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="of the station")
    parser.add_argument("--keep", action="store_true", help="keep the run folders")
    parser.add_argument("--list", action="store_true", help="say what the methods are, and end")
    parser.add_argument("--out", type=Path, default=Path("runs/efficiency"))
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
