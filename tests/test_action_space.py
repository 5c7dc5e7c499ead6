import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from policy.action_space import ActionSpace
from policy.manifest import ActionSpec
from robot.command import CommandKind

DIMS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
unit = st.floats(-1.0, 1.0)
rotvecs = st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3)


def space(**changes: Any) -> ActionSpace:
    dims = changes.get("dims", DIMS)
    fields = {
        "kind": CommandKind.TCP_DELTA,
        "frame": "base",
        "dims": dims,
        "scale": tuple(0.02 if name in "xyz" else 1.0 if name == "gripper" else 0.1 for name in dims),
        "offset": (0.0,) * len(dims),
        "headroom": 0.2,
        "gripper": "binary" if "gripper" in dims else "none",
        "gripper_open_m": 0.08,
        "gripper_closed_m": 0.01,
    }
    return ActionSpace(ActionSpec(**(fields | changes)))


def pose(rotvec: list[float], position: list[float]) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
    T[:3, 3] = position
    return T


HERE = pose([math.pi, 0.0, 0.0], [0.4, 0.1, 0.2])


def command(actions: ActionSpace, action: list[float], T: np.ndarray = HERE, width_m: float = 0.03) -> Any:
    return actions.command(np.array(action, np.float32), T_base_target=T, gripper_width_m=width_m, due_s=1.0)


@pytest.mark.parametrize("frame", ["base", "tcp"])
@given(motion=st.lists(unit, min_size=6, max_size=6), rotvec=rotvecs)
def test_executed_inverts_command(frame: str, motion: list[float], rotvec: list[float]) -> None:
    actions, before = space(frame=frame), pose(rotvec, [0.4, 0.0, 0.3])
    action = np.array([*motion, 1.0], np.float32)
    target = command(actions, action.tolist(), before).target
    after = before.copy()
    after[:3, 3] += target[:3]
    after[:3, :3] = Rotation.from_rotvec(target[3:]).as_matrix() @ before[:3, :3]
    executed = actions.executed(before, after, np.zeros(0), np.zeros(0), 0.08)
    np.testing.assert_allclose(executed, action, atol=1e-5)


@pytest.mark.parametrize("frame", ["base", "tcp"])
@given(twist=st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=6), rotvec=rotvecs)
def test_person_moves_the_tcp_as_the_stick_points_in_the_base_frame(
    frame: str, twist: list[float], rotvec: list[float]
) -> None:
    # the same full scale in every direction, or turning the twist would also stretch it
    actions = space(frame=frame, scale=(0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 1.0))
    T = pose(rotvec, [0.4, 0.0, 0.3])
    action = actions.from_human(np.array(twist), None, T_base_target=T, gripper_width_m=0.08)
    target = command(actions, action.tolist(), T).target
    np.testing.assert_allclose(target, np.array(twist) * [0.02, 0.02, 0.02, 0.1, 0.1, 0.1], atol=1e-7)


def test_centred_stick_is_no_motion_whatever_the_offset() -> None:
    actions = space(offset=(0.004, -0.01, 0.0, 0.05, 0.0, 0.0, 0.0))
    action = actions.from_human(np.zeros(6), None, T_base_target=HERE, gripper_width_m=0.08)
    np.testing.assert_allclose(command(actions, action.tolist()).target, np.zeros(6), atol=1e-9)


def test_dimensions_that_are_not_listed_stay_as_they_are() -> None:
    actions = space(dims=("x", "yaw"))
    made = command(actions, [1.0, -0.5])
    np.testing.assert_allclose(made.target, [0.02, 0.0, 0.0, 0.0, 0.0, -0.05])
    assert made.gripper_width_m == 0.03
    assert actions.motion.tolist() == [True, True]


def test_gripper_is_open_at_plus_one_and_closed_at_minus_one() -> None:
    for mode in ("binary", "width"):
        actions = space(gripper=mode)
        assert command(actions, [0.0] * 6 + [1.0]).gripper_width_m == pytest.approx(0.08)
        assert command(actions, [0.0] * 6 + [-1.0]).gripper_width_m == pytest.approx(0.01)
    assert command(space(gripper="width"), [0.0] * 7).gripper_width_m == pytest.approx(0.045)


@pytest.mark.parametrize("mode", ["binary", "width"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_gripper_that_is_not_finite_moves_nothing(mode: str, value: float) -> None:
    # a NaN is not >= 0: read as "closed", it would drop what the hand holds or crush what it meets
    assert math.isnan(command(space(gripper=mode), [0.0] * 6 + [value]).gripper_width_m)


@pytest.mark.parametrize(("mode", "expected"), [("binary", [1.0, -1.0, 1.0]), ("width", [3 / 7, -1.0, 1.0])])
def test_person_without_a_wish_keeps_the_gripper(mode: str, expected: list[float]) -> None:
    actions = space(gripper=mode)
    got = [
        actions.from_human(np.zeros(6), None, T_base_target=HERE, gripper_width_m=width)[-1]
        for width in (0.06, 0.0, 0.2)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert actions.from_human(np.zeros(6), -1.0, T_base_target=HERE, gripper_width_m=0.08)[-1] == -1.0


def test_tcp_pose_actions_go_there_and_back() -> None:
    actions = space(kind=CommandKind.TCP_POSE, scale=(1.0,) * 7)
    there = pose([0.1, 0.2, -0.3], [0.4, 0.1, 0.2])
    action = actions.executed(HERE, there, np.zeros(0), np.zeros(0), 0.08)
    np.testing.assert_allclose(command(actions, action.tolist()).target, [0.4, 0.1, 0.2, 0.1, 0.2, -0.3], atol=1e-7)


def test_joint_actions_go_there_and_back() -> None:
    dims = tuple(f"joint{i}" for i in range(7))
    before, after = np.linspace(-1.0, 1.0, 7), np.linspace(-0.9, 1.05, 7)
    for kind, moved in ((CommandKind.JOINT_DELTA, after - before), (CommandKind.JOINT_POSITION, after)):
        actions = space(kind=kind, dims=dims, scale=(2.0,) * 7, offset=(0.1,) * 7)
        action = actions.executed(HERE, HERE, before, after, 0.08)
        np.testing.assert_allclose(command(actions, action.tolist()).target, moved, atol=1e-6)


def test_person_cannot_drive_a_bundle_of_joints_or_poses() -> None:
    actions = space(kind=CommandKind.TCP_POSE)
    with pytest.raises(ValueError, match="a person drives TCP deltas"):
        actions.from_human(np.zeros(6), None, T_base_target=HERE, gripper_width_m=0.08)
