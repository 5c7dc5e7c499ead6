"""Draws what bench_sample_efficiency.py measured as PNG files.

.venv/bin/python benchmarks/plot_sample_efficiency.py benchmarks/results/sample_efficiency.json --out docs/pictures
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

PUBLISHED = ("handrail", "hg_dagger", "resfit", "resfit_fast", "hilserl")


def main() -> int:
    """Draw each task's success against steps, its ablations, and the interventions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=_results, help="file with the JSON line of bench_sample_efficiency.py")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    document = options.results
    options.out.mkdir(parents=True, exist_ok=True)
    for task, methods in document["tasks"].items():
        cells = [cell for cell in document["cells"] if cell["task"] == task]
        for path in (
            success(task, {name: methods[name] for name in PUBLISHED if name in methods}, options.out),
            ablations(task, methods, options.out),
            interventions(task, longest([cell for cell in cells if cell["method"] == "handrail"]), options.out),
        ):
            if path is not None:
                print(path)
    return 0


def success(task: str, methods: dict[str, Any], out: Path) -> Path | None:
    """Success against environment steps, mean over the seeds, with Wilson's interval of all layouts together."""
    if not methods:
        return None
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for method in methods.values():
        marks = sorted(method["success"], key=int)
        steps = np.array([int(mark) for mark in marks])
        points = [method["success"][mark] for mark in marks]
        means = np.array([point["mean"] for point in points])
        low, high = np.array([point["wilson95"] for point in points]).T
        seeds = max(point["seeds"] for point in points)
        (line,) = axes.plot(steps, 100 * means, marker="o", label=f"{method['says']} (seeds: {seeds})")
        axes.fill_between(steps, 100 * low, 100 * high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.axhline(90, color="grey", linewidth=0.7, linestyle=":")
    axes.set(xlabel="environment steps, resets included", ylabel="success without a person [%]", ylim=(0, 101))
    axes.set_title(f"{task}: bands are Wilson 95 % intervals")
    axes.legend(fontsize=8)
    return _saved(figure, out / f"sample_efficiency_{task}.png")


def ablations(task: str, methods: dict[str, Any], out: Path) -> Path | None:
    """Success at the last mark that all of them have, one bar per method."""
    methods = {name: method for name, method in methods.items() if name not in PUBLISHED or name == "handrail"}
    common = set.intersection(*(set(method["success"]) for method in methods.values())) if methods else set()
    if len(methods) < 2 or not common:
        return None
    steps = max(common, key=int)
    rows = []
    for method in methods.values():
        last = method["success"][steps]
        rows.append((method["says"], last["mean"], last["wilson95"], last["seeds"]))
    rows.sort(key=lambda row: row[1])
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(rows) + 1), layout="constrained")
    means = 100 * np.array([row[1] for row in rows])
    spread = 100 * np.array([row[2] for row in rows]).T
    axes.barh(range(len(rows)), means, xerr=np.clip([means - spread[0], spread[1] - means], 0, None), capsize=3)
    axes.set_yticks(range(len(rows)), [f"{row[0]} (seeds: {row[3]})" for row in rows], fontsize=8)
    axes.set(xlabel="success on held-out layouts [%], Wilson 95 %", xlim=(0, 101), title=f"{task}, {steps} steps")
    return _saved(figure, out / f"ablations_{task}.png")


def longest(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the longest run of each seed."""
    found = {cell["seed"]: cell for cell in sorted(cells, key=lambda cell: cell["steps"])}
    return [found[seed] for seed in sorted(found)]


def interventions(task: str, cells: list[dict[str, Any]], out: Path) -> Path | None:
    """Interventions per episode against steps, running mean over twenty episodes, one line per seed."""
    if not cells:
        return None
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for cell in cells:
        counts, ends = np.array(cell["interventions"], float), np.array(cell["episode_ends"])
        width = min(20, len(counts))
        axes.plot(ends[width - 1 :], np.convolve(counts, np.full(width, 1 / width), "valid"), label=cell["seed"])
    axes.set(xlabel="environment steps", ylabel="interventions an episode", title=f"{task}: each seed")
    axes.set_ylim(bottom=0)
    axes.legend(title="seed", fontsize=8)
    return _saved(figure, out / f"interventions_{task}.png")


def _results(path: str) -> dict[str, Any]:
    """Read what the benchmark wrote; ArgumentTypeError, which argparse tells in a line, where it is something else."""
    try:
        document: Any = json.loads(Path(path).read_text())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("benchmark") != "sample_efficiency":
        raise argparse.ArgumentTypeError(f"{path}: is not the JSON line that bench_sample_efficiency.py prints")
    return document


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path


if __name__ == "__main__":
    sys.exit(main())
