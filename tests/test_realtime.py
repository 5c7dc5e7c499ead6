"""What is asked of the system, what is said of it, and that all of it is given back."""

from __future__ import annotations

import gc
import os

import pytest

from robot.realtime import RealtimeConfig, ask_for, give_back, without_collections


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Scheduler and priority of every request; all are granted."""
    requests: list[tuple[int, int]] = []
    monkeypatch.setattr(
        os, "sched_setscheduler", lambda pid, policy, param: requests.append((policy, param.sched_priority))
    )
    return requests


def test_nothing_is_asked_for_where_the_station_asks_for_nothing(asked: list[tuple[int, int]]) -> None:
    line = ask_for(RealtimeConfig(priority=0))
    assert line == "real time: nothing asked for ([realtime] in the station)"
    give_back(RealtimeConfig(priority=0), os.sched_getaffinity(0))
    assert asked == []


def test_what_was_granted_is_said_and_children_do_not_inherit_it(asked: list[tuple[int, int]]) -> None:
    before = os.sched_getaffinity(0)
    config = RealtimeConfig(priority=40)
    try:
        assert ask_for(config) == f"real time: SCHED_FIFO 40; core {max(before)}"
        assert os.sched_getaffinity(0) == {max(before)}
    finally:
        give_back(config, before)
    assert asked[0] == (os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, 40)
    assert os.sched_getaffinity(0) == before


def test_the_flag_is_kept_when_it_is_given_back_for_only_root_may_take_it_off(asked: list[tuple[int, int]]) -> None:
    give_back(RealtimeConfig(priority=40), os.sched_getaffinity(0))
    assert asked == [(os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, 0)]


def test_a_refusal_costs_a_line_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object) -> None:
        raise PermissionError

    before = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert "no SCHED_FIFO (allow it with `ulimit -r`" in ask_for(RealtimeConfig(priority=40))
    assert os.sched_getaffinity(0) == before  # on one core it would wait for whatever is there
    give_back(RealtimeConfig(priority=40), before)


def test_cores_are_taken_and_given_back(asked: list[tuple[int, int]]) -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    config = RealtimeConfig(priority=0, cores=(core,))
    try:
        assert ask_for(config) == f"real time: core {core}"
        assert os.sched_getaffinity(0) == {core}
    finally:
        give_back(config, before)
    assert os.sched_getaffinity(0) == before


def test_cores_that_are_not_there_are_said() -> None:
    before = os.sched_getaffinity(0)
    assert "not on core 1000" in ask_for(RealtimeConfig(priority=0, cores=(1000,)))
    assert os.sched_getaffinity(0) == before


def test_nothing_is_collected_meanwhile_and_again_afterwards() -> None:
    def fails() -> None:
        with without_collections():
            assert not gc.isenabled()
            assert gc.get_freeze_count() > 0
            raise RuntimeError("of the loop")

    with pytest.raises(RuntimeError, match="of the loop"):
        fails()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
