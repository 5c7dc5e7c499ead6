from pathlib import Path

import pytest

from robot.errors import BadInputError
from teleop.station import load_station, station_from_json

STATIONS = Path(__file__).parents[1] / "launch" / "stations"
SIM = STATIONS / "sim_place.toml"


def refused(*overrides: tuple[str, str], path: Path = SIM) -> str:
    with pytest.raises(BadInputError) as caught:
        load_station(path, overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("path", sorted(STATIONS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_station_loads_and_has_its_bundle(path: Path) -> None:
    loaded = load_station(path)
    assert loaded.station.name == path.stem
    assert (loaded.bundle_path / "manifest.json").is_file()
    assert loaded.station.period_s == pytest.approx(1.0 / loaded.station.loop.rate_hz)


def test_a_station_comes_back_from_what_the_run_folder_keeps() -> None:
    loaded = load_station(SIM, [("loop.rate_hz", "30")])
    assert station_from_json(loaded.text, "here") == loaded.station
    with pytest.raises(BadInputError, match=r"^run 3: "):
        station_from_json(b"{}", "run 3")
    with pytest.raises(BadInputError, match=r"^run 3: "):
        station_from_json(b"not json", "run 3")


def test_overrides_reach_sections_lists_and_named_cameras() -> None:
    station = load_station(
        SIM,
        [
            ("loop.rate_hz", "30"),
            ("arm.home_m", "[0.4, 0.0, 0.3]"),
            ("camera.wrist.drop_rate", "0.2"),
            ("camera.0.latency_s", "0.03"),
            ("exploration.start", "0.5"),
            ("operator.mode", "nudge"),
        ],
    ).station
    assert station.loop.rate_hz == 30.0
    assert station.arm.home_m == (0.4, 0.0, 0.3)  # type: ignore[union-attr]
    assert station.camera[1].drop_rate == 0.2  # type: ignore[union-attr]
    assert station.camera[0].latency_s == 0.03
    assert station.exploration.start == 0.5
    assert station.operator.mode == "nudge"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("loop.rate_hz", "1", "loop.rate_hz: Input should be greater than or equal to 5, got 1"),
        ("loop.rate_hz", "fast", "loop.rate_hz: Input should be a valid number"),
        ("loop.rate_hx", "20", "unknown key 'loop.rate_hx'; did you mean 'rate_hz'?"),
        ("safety.max_speed_mm_s", "500", "unknown key 'safety.max_speed_mm_s'; did you mean 'max_speed_m_s'?"),
        ("safety.max_speed_m_s", "500", "safety.max_speed_m_s: Input should be less than or equal to 3, got 500"),
        ("camera.front.rate_hs", "20", "unknown key 'camera.0.rate_hs'; did you mean 'rate_hz'?"),
        ("camera.side.rate_hz", "20", "--camera.side.rate_hz: no item 'side' (allowed ['front', 'wrist'] or an index)"),
        ("camera.front", "3", "--camera.front: names a list item, not a key"),
        ("loop.rate_hz.x", "20", "--loop.rate_hz.x: 'rate_hz' is a value, not a section"),
        ("camera.wrist.name", '"front"', "a camera is named twice: ['front', 'front']"),
        ("arm.kind", '"robot"', "arm: Input tag 'robot' found using 'kind' does not match"),
        ("synchroniser.max_skew_s", "0", "synchroniser.max_skew_s: Input should be greater than 0, got 0"),
        ("residual.scale", "[0.1, 1.5]", "residual.scale.1: Input should be less than or equal to 1, got 1.5"),
        ("safety.workspace_min_m", "[1.0, -0.3, 0.0]", "workspace_min_m must be below workspace_max_m"),
        ("arm.task.tolerance_m", "5.0", "arm.task.tolerance_m: Input should be less than or equal to 0.05, got 5.0"),
        ("camera.².height", "84", "--camera.².height: no item '²' (allowed ['front', 'wrist'] or an index)"),
        ("policy.bundle", '"a\\u0000b"', "a value holds the character NUL"),
        ("safety.max_speed_m_s", "true", "safety.max_speed_m_s: got true or false (allowed a number)"),
        ("arm.home_m", "[0.4, false, 0.3]", "arm.home_m.1: got true or false (allowed a number)"),
        ("camera.wrist.drop_rate", "false", "camera.1.drop_rate: got true or false (allowed a number)"),
        ("loop.rate_hz", "[" * 5000, "loop.rate_hz: Input should be a valid number"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(key: str, value: str, said: str) -> None:
    assert said in refused((key, value))


def test_safety_has_no_silent_default(tmp_path: Path) -> None:
    text = SIM.read_text()
    lines = [line for line in text.splitlines() if line.startswith(("max_", "joint_", "workspace_", "gripper_"))]
    safety = [line for line in lines if line in text.split("[safety]")[1].split("[[camera]]")[0].splitlines()]
    assert len(safety) >= 12
    for line in safety:
        path = tmp_path / "station.toml"
        path.write_text(text.replace(line + "\n", ""))
        assert f"safety.{line.split()[0]}: Field required" in refused(path=path)
    for section in ("[synchroniser]", "[episode]", "[operator]"):
        path.write_text(text.replace(section, "[other]"))
        assert refused(path=path)


def test_station_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refused(path=tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = \n")
    assert "is not TOML" in refused(path=broken)
    broken.write_bytes(b"name = \xff\xfe")
    assert "is no text in UTF-8 (byte 0xff at 7); save it so" in refused(path=broken)
    assert "cannot be read (Is a directory)" in refused(path=tmp_path)
    broken.write_text("")
    assert "name: Field required" in refused(path=broken)


def test_a_station_that_is_nothing_but_brackets_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("x = " + "[" * 5000 + "]" * 5000)
    assert "is nested too deeply" in refused(path=path)


def test_a_mark_that_some_editors_put_in_front_is_no_matter(tmp_path: Path) -> None:
    marked = tmp_path / "marked.toml"
    marked.write_bytes(b"\xef\xbb\xbf" + SIM.read_bytes().replace(b"\n", b"\r\n"))
    assert load_station(marked).station == load_station(SIM).station


def test_recorded_arm_does_not_go_with_simulated_cameras() -> None:
    arm = '{kind = "recorded", gripper_open_m = 0.08, gripper_closed_m = 0.0}'
    assert "a recorded arm needs recorded cameras" in refused(("arm", arm))


def test_an_answer_that_is_simulated_comes_before_the_deadline() -> None:
    line = refused(("policy.deadline_s", "0.5"), ("policy.simulated_delay_s", "0.5"))
    assert "policy: simulated_delay_s is 0.5: no answer would come before deadline_s of 0.5; make it less" in line
