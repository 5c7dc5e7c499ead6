from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policy.episode_commit import commit_episode
from policy.episode_header import EpisodeOutcome, LabelSource, Outcome
from policy.episode_schema import STAGES, EpisodeSpec
from policy.episode_writer import EpisodeWriter
from policy.run_folder import RunFolder
from robot.errors import BadInputError
from teleop.arbiter import Source
from teleop.episode_digest import EpisodeDigest, digest_episode, typical_corrected
from teleop.report import write_report
from teleop.report_svg import picture
from tests.episodes import header

SPEC = EpisodeSpec(
    cameras=(("front", 24, 32), ("wrist", 24, 24)),
    proprio=(("tcp_position_m", 3),),
    action_size=4,
    chunk_length=2,
    feature_size=3,
    joint_count=0,
)
POLICY, HUMAN, HOLD, RESET = Source.POLICY, Source.HUMAN, Source.HOLD, Source.RESET
ALONE = [RESET] * 3 + [POLICY] * 12
CORRECTED = [RESET] * 3 + [POLICY] * 4 + [HUMAN] * 5 + [POLICY] * 3
TWICE = [RESET] * 2 + [HOLD] + [HUMAN] * 2 + [POLICY] * 2 + [HUMAN] * 9
SUMMARY: dict[str, Any] = {
    "base": {"successes": 29, "episodes": 60, "rate": 29 / 60, "wilson95": [0.361, 0.607]},
    "trained": {"successes": 57, "episodes": 60, "rate": 0.95, "wilson95": [0.863, 0.983]},
    "env_steps": 12345,
    "training_wall_s": 187.4,
    "interventions": {"first_quarter_per_episode": 1.25, "last_quarter_per_episode": 0.2, "failures_allowed": 3},
    "ticks": {"count": 45678, "overhead_ms": {"p50": 0.41, "p99": 1.37}, "deadline_misses": 0},
    "episodes": {"committed": 205, "incomplete": 1},
    "replay": {"ticks": 45678, "mismatches": 0},
    "learner": {"updates": 6200, "updates_per_s": 71.5, "accepted": 84, "refused": 2},
    "controllers": {"best_constant_residual": {"successes": 40, "episodes": 60, "rate": 2 / 3}},
    "seed": 7,
    "command": "./launch/demo.sh --seed 7",
}
TIMES = {stage: np.linspace(0.01, 0.2, 40) * (index + 1) for index, stage in enumerate(STAGES)}


def commit(folder: Path, index: int, sources: Sequence[Source], outcome: Outcome, spec: EpisodeSpec = SPEC) -> Path:
    """One episode on disk in which `sources` acted, with a picture and a plausible voice per tick."""
    rng = np.random.default_rng(index)
    own = header(index, spec)
    with EpisodeWriter(folder, own) as writer:
        for tick, source in enumerate(sources):
            row = np.zeros((), spec.row_dtype())
            for name, height, width in spec.cameras:
                row[f"obs/{name}_image"] = shade(height, width, tick)
            reset, human = source is RESET, source is HUMAN
            base = np.array([np.sin(tick / 4), np.cos(tick / 5), -0.3, 1.0]) * 0.8
            row["tick/index"], row["tick/source"], row["tick/T_base_tcp"] = tick, source, np.eye(4)
            row["tick/reset"] = 0.1 if reset else np.nan
            row["tick/base"] = np.nan if reset else base
            row["tick/residual"] = 0.0 if reset else rng.normal(0.0, 0.1, 4) * [1, 1, 1, 0]
            row["tick/human"] = [0.5, -0.2, -0.6, 1.0] if human else np.nan
            row["tick/commanded"] = row["tick/human"] if human else 0.1 if reset else base + row["tick/residual"]
            writer.append(row)
        whole = outcome is not Outcome.INCOMPLETE
        label = EpisodeOutcome(outcome=outcome, label_source=LabelSource.OPERATOR_SIMULATED, complete=whole)
        writer.finish(label)
    return commit_episode(writer.path).path


def shade(height: int, width: int, tick: int) -> NDArray[np.uint8]:
    image = np.full((height, width, 3), 200, np.uint8)
    image[height // 3 : height // 2, (tick * 2) % width :][:, : width // 5] = (200, 60, 40)
    return image


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder.create(tmp_path_factory.mktemp("runs") / "demo", header().provenance)


@pytest.fixture(scope="module")
def episodes(run: RunFolder) -> list[EpisodeDigest]:
    scripts = [
        (TWICE, Outcome.FAILURE),
        (CORRECTED, Outcome.SUCCESS),
        (ALONE, Outcome.TIMEOUT),
        (ALONE, Outcome.SUCCESS),
        (CORRECTED, Outcome.SUCCESS),
    ]
    return [
        digest_episode(commit(run.episodes, index, sources, outcome))
        for index, (sources, outcome) in enumerate(scripts)
    ]


class Page(HTMLParser):
    """What a reader sees, what a browser would fetch, and whether every element is closed in its order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.fetched: list[str] = []
        self.ids: list[str | None] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "poster", "srcset"):
                self.fetched.append(value or "")
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data


def report(
    run: RunFolder,
    summary: Mapping[str, Any],
    episodes: Sequence[EpisodeDigest] = (),
    times: Mapping[str, NDArray[np.float64]] | None = None,
    log: Sequence[str] = (),
) -> tuple[Page, str]:
    path = write_report(run.path / "report.html", summary, episodes, run, times or {}, log)
    html = path.read_text(encoding="utf-8")
    return Page(html), html


@pytest.fixture(scope="module")
def whole(run: RunFolder, episodes: list[EpisodeDigest]) -> tuple[Page, str]:
    return report(run, SUMMARY, episodes, TIMES, ["episode 1 <b>", "done"])


def test_whole_run_says_every_figure_of_the_summary(run: RunFolder, whole: tuple[Page, str]) -> None:
    page, html = whole
    for words in (
        "48 % → 95 %",
        "29 of 60 held-out layouts, 36 to 61 % with 95 % confidence",
        "57 of 60 held-out layouts, 86 to 98 % with 95 % confidence",
        "67 %  (40 of 60; 54 to 77 %)",  # no interval given: it is computed
        "12,345",
        "3 min 7 s",
        "1.25 → 0.20",
        "0.41 ms",
        "1.37 ms",
        "All 45,678 logged ticks were recomputed",
        "205 episodes committed in all, 1 incomplete",
        "The person took over in 3 of 5 episodes",
        "Training episode 5: success after 0.6 s. The person took over once, first at 0.3 s, and drove 0.2 s in all",
        "6,200",
        "71.5",
        "./launch/demo.sh --seed 7",
        run.run_id,
        "episode 1 <b>",
    ):
        assert words in page.text, words
    assert html.count("<svg") == 5
    assert html.count('<img src="data:image/png') == 16  # eight moments, two cameras


def test_page_fetches_nothing_and_is_small(whole: tuple[Page, str]) -> None:
    page, html = whole
    assert page.fetched
    assert [found for found in page.fetched if not found.startswith(("data:", "#"))] == []
    assert not re.search(r"@import|url\((?!#)|<script|<link", html)
    assert len(page.ids) == len(set(page.ids))
    assert len(html) < 1_000_000


def test_figures_follow_the_readers_light_or_dark_setting(whole: tuple[Page, str]) -> None:
    _, html = whole
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    words = re.findall(r"<text[^>]*>", drawn)
    assert words
    assert [word for word in words if not re.search(r"fill: (var\(--|#[0-9a-f]{6})", word)] == []  # else it is black
    assert not re.search(r"#(000000|ffffff|00000[1-4])\b", drawn)  # matplotlib's own black and white, our stand-ins


def test_same_run_gives_the_same_page(run: RunFolder, episodes: list[EpisodeDigest], whole: tuple[Page, str]) -> None:
    assert report(run, SUMMARY, episodes, TIMES, ["episode 1 <b>", "done"])[1] == whole[1]


@pytest.mark.parametrize("missing", [*SUMMARY, None])
def test_any_missing_part_is_said_in_words(run: RunFolder, missing: str | None) -> None:
    summary = {} if missing is None else {key: value for key, value in SUMMARY.items() if key != missing}
    page, _ = report(run, summary)
    said = {
        "trained": "48 % → not measured",
        "base": "not measured → 95 %",
        "replay": "were not replayed",
        "learner": "No learner ran",
        "env_steps": "Not measured: training steps of the robot.",
        "training_wall_s": "Not measured: wall time of the training.",
        "ticks": "Not measured: ticks; overhead of a tick, p50; overhead of a tick, p99; missed deadlines.",
        "seed": "not noted",
        None: "No success rate was measured",
    }
    assert said.get(missing, "No training episode was committed") in page.text
    assert not re.search(r"\b(None|nan)\b", page.text)


@pytest.mark.parametrize("part", [key for key in SUMMARY if isinstance(SUMMARY[key], dict)])
def test_empty_and_null_parts_are_as_good_as_missing(run: RunFolder, part: str) -> None:
    nothing: list[dict[str, int] | None] = [{}, None]
    for value in nothing:
        page, _ = report(run, SUMMARY | {part: value})
        assert not re.search(r"\b(None|nan)\b", page.text)


def test_no_layouts_are_no_rate(run: RunFolder) -> None:
    page, _ = report(run, {"base": {"successes": 0, "episodes": 0, "rate": float("nan"), "wilson95": [0.0, 1.0]}})
    assert "No success rate was measured" in page.text


def test_aborted_run_says_why(run: RunFolder, episodes: list[EpisodeDigest]) -> None:
    page, _ = report(run, {"base": SUMMARY["base"], "aborted": "the disk is full"}, episodes[:1])
    assert "cut short: the disk is full" in page.text
    assert "48 % → not measured" in page.text


def test_run_without_a_person_has_no_corrected_episode(run: RunFolder, episodes: list[EpisodeDigest]) -> None:
    page, html = report(run, SUMMARY, [episodes[2], episodes[3]], TIMES)
    assert "Nobody took over in any of the 2 episodes" in page.text
    assert "the person drove in no committed episode" in page.text
    assert "<img" not in html


def test_one_episode_is_enough_for_every_figure(run: RunFolder, episodes: list[EpisodeDigest]) -> None:
    _, html = report(run, SUMMARY, [episodes[1]], {stage: np.zeros(1) for stage in STAGES})
    assert html.count("<svg") == 5


def test_empty_and_very_short_episodes_can_be_shown(run: RunFolder, tmp_path: Path) -> None:
    empty = digest_episode(commit(tmp_path, 90, [], Outcome.INCOMPLETE))
    short = digest_episode(commit(tmp_path, 91, [HUMAN], Outcome.ABORT))
    assert (empty.ticks, short.ticks, short.interventions) == (0, 1, 1)
    assert "No training episode was committed" in report(run, {}, [empty])[0].text
    page, html = report(run, {}, [empty, short])
    assert "(none succeeded)" in page.text
    assert html.count("<img") == 2


def test_damaged_episode_does_not_cost_the_report(run: RunFolder, tmp_path: Path) -> None:
    digest = digest_episode(commit(tmp_path, 92, CORRECTED, Outcome.SUCCESS))
    digest.path.write_bytes(b"")
    page, _ = report(run, SUMMARY, [digest])
    assert "It can no longer be read" in page.text
    assert "the file is empty" in page.text


def test_mismatches_are_a_warning(run: RunFolder) -> None:
    _, html = report(run, SUMMARY | {"replay": {"ticks": 100, "mismatches": 3}})
    assert '<p class="warn">3 of 100 recomputed ticks differ from the log' in html


def test_folder_that_is_not_there_is_one_line(run: RunFolder) -> None:
    with pytest.raises(BadInputError, match=r"gone/report\.html: cannot be written \(No such file or directory\); che"):
        write_report(run.path / "gone" / "report.html", SUMMARY, [], run, {}, [])


def test_digest_counts_as_the_loop_does(episodes: list[EpisodeDigest]) -> None:
    counts = [(episode.ticks, episode.human_ticks, episode.interventions) for episode in episodes]
    assert counts == [(14, 11, 2), (12, 5, 1), (12, 0, 0), (12, 0, 0), (12, 5, 1)]
    assert [episode.success for episode in episodes] == [False, True, False, True, True]
    np.testing.assert_array_equal(episodes[0].sources, [int(source) for source in TWICE])


def test_shown_episode_is_the_median_success_and_of_equals_the_later(episodes: list[EpisodeDigest]) -> None:
    shown = typical_corrected(episodes)
    assert shown is not None
    assert shown.index == 4
    assert typical_corrected(episodes[:1]) is episodes[0]  # no success among the corrected
    assert typical_corrected(episodes[2:4]) is None


def test_large_picture_shrinks_by_a_whole_factor() -> None:
    small, large = (picture(shade(h, w, 3), most_pixels=160) for h, w in ((84, 84), (480, 640)))
    assert large.startswith("data:image/png;base64,")
    assert len(large) < 4 * len(small)
