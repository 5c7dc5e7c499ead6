"""What the benchmark of the loop counts."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench_tick import Comparison, Measured, count_gaps
from perception.pattern_source import camera_id, pattern
from perception.policy_image import policy_image
from policy.episode_commit import Committed, commit_episode
from policy.episode_header import EpisodeOutcome, LabelSource, Outcome
from policy.episode_schema import EpisodeSpec, seal
from policy.episode_writer import EpisodeWriter
from tests.episodes import SPEC, header, make_rows

_IMAGE = (84, 84)
_FRONT: EpisodeSpec = SPEC.model_copy(update={"cameras": (("front", *_IMAGE),)})


def record(folder: Path, episode: int, numbers: list[int], held: int, lost: int = 0) -> Committed:
    """An episode whose ticks saw the pictures of these numbers, under the same frame ids."""
    rows = make_rows(len(numbers), _FRONT)
    with EpisodeWriter(folder, header(episode, _FRONT)) as writer:
        for place, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            row["tick/frame_id"], row["tick/verdict"], row["tick/held"] = place, 0, place < held
            row["obs/front_image"] = policy_image(pattern(camera_id("front"), number, (480, 640)), _IMAGE)
            seal(row)
            writer.append(row)
        outcome = EpisodeOutcome(
            outcome=Outcome.TIMEOUT, label_source=LabelSource.NONE, complete=not lost, dropped_ticks=lost
        )
        return commit_episode(writer.finish(outcome))


def test_held_and_unrecorded_ticks_are_those_of_the_measured_episodes(tmp_path: Path) -> None:
    measured = Measured()
    for committed in (record(tmp_path, 0, [0, 1], 2, lost=3), record(tmp_path, 1, [0, 1, 2], 1, lost=5)):
        count_gaps(committed, 1, measured)
    assert (measured.held, measured.unrecorded) == (1, 5)


def test_pictures_are_compared_in_a_process_of_their_own_and_then_deleted(tmp_path: Path) -> None:
    comparison = Comparison()
    right = record(tmp_path, 0, [0, 1, 2], 0)
    wrong = record(tmp_path, 1, [0, 7000, 2], 0)
    comparison.start([right.path])
    comparison.start([wrong.path])
    comparison.wait()
    assert (comparison.found.frames, comparison.found.mixed_up_frames) == (6, 1)
    assert not right.path.exists()
    assert not wrong.path.exists()
