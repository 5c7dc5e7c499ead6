"""What docs/recording.md shows runs, and its words are the station's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from perception.config import LiveCameraConfig
from policy.episode_commit import commit_episode
from policy.episode_writer import EpisodeWriter
from tests.episodes import SUCCESS, make_rows
from tests.stream_frames import DEPTH, JPEG, LOSSLESS, encoded, streamed_header

TEXT = (Path(__file__).parents[1] / "docs" / "recording.md").read_text()


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (path,) = re.findall(r'Path\("(runs/.*?\.h5)"\)', example)
    with EpisodeWriter(tmp_path, streamed_header()) as writer:
        row = make_rows(1)[0]
        row["tick/frame_id"], row["tick/captured_s"] = 102, encoded(JPEG, 2).captured_s
        writer.append(row)
        for spec in (JPEG, DEPTH, LOSSLESS):
            for number in range(4):
                writer.append_frame(spec.name, encoded(spec, number))
        committed = commit_episode(writer.finish(SUCCESS))
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(example.replace(path, str(committed.path)), found)
    assert "4 frames, 0 not recorded" in capsys.readouterr().out
    assert found["place"] == 0
    np.testing.assert_array_equal(found["used"], [2])
    assert simplejpeg.is_jpeg((tmp_path / "first.jpg").read_bytes())


def test_the_keys_and_defaults_are_those_of_a_camera() -> None:
    fields = LiveCameraConfig.model_fields
    section = TEXT.partition("## What the station says")[2].partition("\n## ")[0]
    keys = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    assert {name for name, _ in keys} == {"stream", "jpeg_quality", "depth_stream"}
    for name, values in keys:
        default = fields[name].default
        word = f'"{default}"' if isinstance(default, str) else str(default).lower()
        assert re.search(rf"`?{word}`? (\(default\)|by default)", values), (name, values)
