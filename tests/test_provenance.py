from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.metadata import version

from policy.provenance import Provenance, collect_provenance, utc_now
from robot.clock import VirtualClock


def test_provenance_says_what_ran_and_relates_the_clock_to_utc() -> None:
    before = datetime.now(UTC)
    found = collect_provenance(VirtualClock(12.5), operator="ada")
    utc = datetime.strptime(found.utc, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    assert before <= utc <= datetime.now(UTC)
    assert found.monotonic_s == 12.5
    assert found.operator == "ada"
    assert found.libraries["numpy"] == version("numpy")
    assert found.commit is None or re.fullmatch("[0-9a-f]{40}", found.commit)
    assert (found.commit is None) == (found.modified is None)
    assert found.cpu
    assert Provenance.model_validate_json(found.model_dump_json()) == found


def test_times_in_names_sort_as_they_pass() -> None:
    first, second = utc_now(), utc_now()
    assert first <= second
