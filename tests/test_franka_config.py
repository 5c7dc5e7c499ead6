"""The section of a station with a Franka."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from pydantic import ValidationError

from perception.camera import Camera
from policy.bundle import load_bundle
from robot import fr3
from robot.arm import Arm
from robot.franka_config import FrankaToolConfig
from robot.geometry import pose, rotvec_to_matrix
from teleop.rig_misfits import rig_misfits
from teleop.station import load_station
from tests.franka_bench import ROOT, franka

STATION = ROOT / "launch" / "stations" / "franka_sim.toml"


def test_the_shipped_station_is_one() -> None:
    arm = load_station(STATION).station.arm
    assert arm.kind == "franka"
    assert arm.simulator is not None
    assert arm.simulator.start


@pytest.mark.parametrize("field", ["collision", "servo", "home_m", "address"])
def test_what_safety_rests_on_has_no_default(field: str) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        type(franka("10.0.0.2")).model_validate(franka("10.0.0.2").model_dump(exclude={field}))


@pytest.mark.parametrize("address", ["", "10.0.0.2:1337", "tcp://arm", "an arm", "-x"])
def test_an_address_is_a_host_and_nothing_else(address: str) -> None:
    with pytest.raises(ValidationError, match="address"):
        franka(address)


@pytest.mark.parametrize("address", ["172.16.0.2", "arm.local", "127.arm"])
@pytest.mark.parametrize("start", [True, False])
def test_a_station_with_a_simulator_names_no_arm(address: str, start: bool) -> None:
    simulator = {"task": {"kind": "place", "tolerance_m": 0.01}, "start": start}
    with pytest.raises(ValidationError, match=r"which is on this machine .* for an arm remove simulator"):
        franka(address, simulator=simulator)
    for here in ("127.0.0.1", "127.3.0.9", "localhost"):
        assert franka(here, simulator=simulator).simulator is not None


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_tool_that_is_turned_by_no_number_is_refused(number: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        FrankaToolConfig(rotation_vector_deg=(0.0, number, 0.0))


def test_the_tool_that_is_left_out_is_the_hand() -> None:
    np.testing.assert_allclose(FrankaToolConfig().T_flange_tcp, fr3.T_FLANGE_HAND_TCP, atol=1e-12)


def test_a_tool_is_where_the_station_says() -> None:
    tool = FrankaToolConfig(position_m=(0.0, 0.1, 0.2), rotation_vector_deg=(0.0, 90.0, 0.0))
    np.testing.assert_allclose(tool.T_flange_tcp @ (0.0, 0.0, 1.0, 1.0), (1.0, 0.1, 0.2, 1.0), atol=1e-12)


def test_kinematics_with_another_tool_agree_with_those_of_the_hand_moved_on() -> None:
    T_flange_tcp = pose(rotvec_to_matrix(np.array([0.1, -0.3, 0.5])), np.array([0.02, 0.03, 0.2]))
    other, hand = fr3.FR3Kinematics(T_flange_tcp=T_flange_tcp), fr3.FR3Kinematics()
    T_hand_tcp = np.linalg.inv(fr3.T_FLANGE_HAND_TCP) @ T_flange_tcp
    q_rad = np.array(fr3.HOME_Q_RAD) + np.linspace(-0.3, 0.4, 7)
    np.testing.assert_allclose(other.forward(q_rad), hand.forward(q_rad) @ T_hand_tcp, atol=1e-12)
    step_rad = 1e-7
    for joint in range(7):
        moved = q_rad.copy()
        moved[joint] += step_rad
        linear = (other.forward(moved) - other.forward(q_rad))[:3, 3] / step_rad
        np.testing.assert_allclose(other.jacobian(q_rad)[:3, joint], linear, atol=1e-6)
    solved = other.solve(other.forward(q_rad), q_rad + 0.02)
    assert solved is not None
    np.testing.assert_allclose(other.forward(solved), other.forward(q_rad), atol=3e-4)
    # named or not, the hand has the same bits
    named = fr3.FR3Kinematics(T_flange_tcp=FrankaToolConfig().T_flange_tcp)
    assert named.forward(q_rad).tobytes() == hand.forward(q_rad).tobytes()


@pytest.mark.parametrize("kind", ["pattern", "playback"])
def test_no_policy_moves_an_arm_by_pictures_that_do_not_show_it(kind: str, tmp_path: Path) -> None:
    shown = load_station(STATION)
    text, bundle = STATION.read_text(), load_bundle(shown.bundle_path, "cpu")
    arm = [line for line in text.partition("[[camera]]")[0].splitlines() if not line.startswith("simulator")]
    rest = text[text.index("[synchroniser]") :].replace("../../policy", str(ROOT / "policy"))
    footage = f'file = "{tmp_path / "table.h5"}"\nview = "front"\n' if kind == "playback" else ""
    cameras = "".join(
        f'[[camera]]\nkind = "{kind}"\nname = "{camera.name}"\nheight = 84\nwidth = 84\nrate_hz = 20.0\n{footage}'
        for camera in bundle.manifest.cameras
    )
    path = tmp_path / "real.toml"
    path.write_text("\n".join(arm) + "\n" + cameras + rest)
    loaded = load_station(path)
    arms, views = (
        SimpleNamespace(joint_count=7),
        [SimpleNamespace(name=camera.name, size=(84, 84)) for camera in bundle.manifest.cameras],
    )
    lines = rig_misfits(loaded, bundle, cast(Arm, arms), cast(list[Camera], views))
    assert lines == [
        f"station {path}: camera '{camera.name}' is of kind '{kind}' and does not see the arm that the policy would "
        "move by it; name a real camera"
        for camera in bundle.manifest.cameras
    ]
