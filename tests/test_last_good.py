import pytest

from teleop.evaluation import Evaluation
from teleop.last_good import last_good
from teleop.statistics import paired_difference

LAYOUTS = 100


def wins(first: int, end: int) -> Evaluation:
    """Success on the layouts `first` to `end`, failure on the others."""
    outcomes = {layout: "success" if first <= layout < end else "failure" for layout in range(LAYOUTS)}
    return Evaluation(outcomes=outcomes, ticks=0)


class Bench:
    """Measures made-up controllers, each known by its message."""

    def __init__(self, base: Evaluation, **controllers: Evaluation) -> None:
        self._by_message = {name.encode(): found for name, found in controllers.items()} | {None: base}
        self.measured: list[bytes | None] = []

    def measure(self, message: bytes | None) -> Evaluation:
        self.measured.append(message)
        return self._by_message[message]


def name_of(version: int) -> bytes:
    return f"v{version}".encode()


def test_weights_that_are_better_stay_and_nothing_else_is_measured() -> None:
    bench = Bench(wins(0, 50), v4=wins(0, 90))
    kept = last_good([1, 2, 3, 4], name_of, bench.measure)
    assert (kept.version, kept.message) == (4, b"v4")
    assert bench.measured == [None, b"v4"]
    assert kept.tried[4].difference == pytest.approx(0.4)


def test_weights_that_are_worse_give_way_to_older_ones_that_are_not() -> None:
    bench = Bench(wins(0, 50), v4=wins(0, 30), v2=wins(0, 60))
    kept = last_good([1, 2, 3, 4], name_of, bench.measure)
    assert kept.version == 2
    assert list(kept.tried) == [4, 2]
    line = kept.line(5, kept.tried[4])
    assert line.startswith("weights 5 are worse than the base (-20 points against the base on 100 layouts")
    assert "rolled back to weights 2 (+10 points" in line


def test_the_base_alone_is_the_last_way_back() -> None:
    bench = Bench(wins(0, 50), v3=wins(0, 30), v1=wins(0, 20))
    kept = last_good([1, 2, 3], name_of, bench.measure)
    assert (kept.version, kept.message) == (0, None)
    assert kept.line(3, kept.tried[3]).endswith("rolled back to the base alone")


def test_a_run_without_weights_ends_with_the_base() -> None:
    bench = Bench(wins(0, 50))
    assert last_good([], name_of, bench.measure).version == 0
    assert bench.measured == []


def test_a_rate_that_may_be_lower_by_more_than_the_margin_is_not_good_enough() -> None:
    # as often as the base less 2 of 100, but on quite other layouts: nothing is known
    bench = Bench(wins(0, 50), v1=wins(50, 98))
    assert last_good([1], name_of, bench.measure).version == 0
    # the same rates on the same layouts: surely no more than five points lower
    bench = Bench(wins(0, 96), v1=wins(0, 95))
    assert last_good([1], name_of, bench.measure, margin=0.06).version == 1


@pytest.mark.parametrize(
    ("both", "gained", "lost", "neither", "interval"),
    [
        (36, 12, 2, 0, (0.0569, 0.3404)),  # Newcombe 1998, table III
        (0, 0, 0, 30, (-0.1135, 0.1135)),
        (54, 0, 0, 0, (-0.0664, 0.0664)),
    ],
)
def test_the_interval_of_a_paired_difference(
    both: int, gained: int, lost: int, neither: int, interval: tuple[float, float]
) -> None:
    pairs = [(True, True)] * both + [(True, False)] * gained + [(False, True)] * lost + [(False, False)] * neither
    found = paired_difference(
        {i: new for i, (new, _) in enumerate(pairs)}, {i: old for i, (_, old) in enumerate(pairs)}
    )
    assert (found.low, found.high) == pytest.approx(interval, abs=5e-5)
    assert (found.gained, found.lost, found.episodes) == (gained, lost, len(pairs))


def test_only_layouts_that_both_have_are_compared() -> None:
    found = paired_difference({0: True, 1: True, 7: True}, {0: False, 1: True, 9: False})
    assert (found.episodes, found.gained, found.lost, found.difference) == (2, 1, 0, 0.5)
    assert paired_difference({}, {0: True}).not_worse(1.0)
    assert not paired_difference({}, {0: True}).difference
