"""How a replay in several processes ends when it is interrupted."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from teleop import replay, replay_worker
from teleop.replay_episode import EpisodeReport


class Endless:
    """A worker whose second file is interrupted by Ctrl-C in the main thread."""

    done = 0

    def __enter__(self) -> Endless:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def verify(self, file: Path) -> EpisodeReport:
        Endless.done += 1
        if Endless.done == 2:
            ident = threading.main_thread().ident
            assert ident is not None
            signal.pthread_kill(ident, signal.SIGINT)
        threading.Event().wait(0.002)  # as real work does, this lets the main thread go on
        return EpisodeReport.model_construct()


def test_ctrl_c_leaves_the_files_that_are_not_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(replay, "_Worker", Endless)
    monkeypatch.setattr(Endless, "done", 0)
    files = [tmp_path / f"{number}.h5" for number in range(2000)]
    with pytest.raises(KeyboardInterrupt):
        replay._in_processes(files, 2, lambda report: None)
    assert Endless.done < len(files) / 2


def test_a_worker_leaves_ctrl_c_to_whoever_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        with Path(os.devnull).open() as nothing:
            monkeypatch.setattr(sys, "stdin", nothing)
            replay_worker.main()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
