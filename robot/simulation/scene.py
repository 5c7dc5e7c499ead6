"""The MJCF of the simulated station: an FR3-like arm, a parallel gripper and a table with what a task puts on it.

Everything is written out from numbers here: joint frames from the FR3's modified DH table, primitive geoms
for its links. Geom groups: 0 what cameras see, 3 collision only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robot import fr3

FINGER_STROKE_M = 0.04  # each; opening 80 mm as the Franka Hand's
TABLE_RGBA = "0.62 0.60 0.56 1"

# Link hulls as capsules in the joint's own frame: (from, to, radius) [m], our own coarse fit.
_LINKS: tuple[tuple[tuple[float, float, float], tuple[float, float, float], float], ...] = (
    ((0, 0, -0.19), (0, 0, 0.0), 0.06),
    ((0, 0, -0.06), (0, 0, 0.06), 0.06),
    ((0, 0, -0.14), (0, 0, 0.0), 0.06),
    ((0, 0, -0.05), (0, 0, 0.05), 0.06),
    ((0, 0, -0.25), (0, 0.06, -0.10), 0.055),
    ((0, 0, -0.02), (0.05, 0, 0.02), 0.05),
    ((0, 0, 0.0), (0, 0, 0.08), 0.045),
)
_MASS_KG = (3.0, 3.0, 2.5, 2.5, 2.5, 1.5, 0.8)
# Position servo gains per joint: stiff enough to track within 2 mm at 0.4 m/s, within the FR3's torques.
_KP = (4500, 4500, 3500, 3500, 2000, 2000, 1000)
_KV = (450, 450, 350, 350, 120, 120, 60)
_TORQUE_NM = (87, 87, 87, 87, 12, 12, 12)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a task puts on the table: one thing to be handled, and the place where it belongs.

    Attributes:
        name: of the model.
        target_xml: a fixed body `target`, which a layout moves in the table's plane.
        object_xml: a body `object` with a free joint `object`.
        felt: geoms that press on each other where a wrist sensor would feel it: those that the hand moves, and those
            that stand; "table", "left_finger" and "right_finger" are everybody's.
    """

    name: str
    target_xml: str
    object_xml: str
    felt: tuple[tuple[str, ...], tuple[str, ...]] = (("left_finger", "right_finger"), ("table",))


def scene_xml(scene: Scene, *, timestep_s: float) -> str:
    """Return the MJCF of the station, base frame = world frame, z up, table top at z = 0 [m]."""
    joints, close = [], ""
    for i, (a_m, alpha_rad, d_m) in enumerate(fr3.DH):
        low, high = fr3.Q_MIN_RAD[i], fr3.Q_MAX_RAD[i]
        start, end, radius = _LINKS[i]
        joints.append(
            f'<body name="link{i + 1}" pos="{a_m} {-math.sin(alpha_rad) * d_m:.9f} {math.cos(alpha_rad) * d_m:.9f}" '
            f'quat="{math.cos(alpha_rad / 2):.12f} {math.sin(alpha_rad / 2):.12f} 0 0" gravcomp="1">'
            f'<inertial pos="0 0 -0.03" mass="{_MASS_KG[i]}" diaginertia="0.02 0.02 0.02"/>'
            f'<joint name="joint{i + 1}" axis="0 0 1" range="{low} {high}" armature="0.1" damping="1"/>'
            f'<geom name="link{i + 1}" type="capsule" fromto="{_vector(start)} {_vector(end)}" size="{radius}" '
            f'rgba="0.92 0.92 0.94 1" contype="0" conaffinity="0"/>'
        )
        close += "</body>"
    finger = (
        '<geom name="{n}_finger" type="box" size="0.010 0.006 0.022" pos="0 {y} -0.012" rgba="0.25 0.25 0.28 1" '
        'friction="1.6 0.02 0.0005" condim="4" solimp="0.95 0.99 0.001" solref="0.006 1"/>'
    )
    hand = f"""
      <body name="hand" pos="0 0 {fr3.FLANGE_M}" euler="0 0 {fr3.HAND_YAW_RAD:.12f}" gravcomp="1">
        <inertial pos="0 0 0.04" mass="0.7" diaginertia="0.001 0.0025 0.0017"/>
        <geom name="hand" type="box" size="0.02 0.1 0.03" pos="0 0 0.035" rgba="0.55 0.56 0.60 1"
              contype="0" conaffinity="0"/>
        <site name="tcp" pos="0 0 {fr3.TCP_M}"/>
        <body name="finger_left" pos="0 0 {fr3.TCP_M}" gravcomp="1">
          <inertial pos="0 0 0" mass="0.05" diaginertia="1e-5 1e-5 1e-5"/>
          <joint name="finger_left" type="slide" axis="0 1 0" range="0 {FINGER_STROKE_M}" armature="0.1" damping="8"/>
          {finger.format(n="left", y=0.006)}
        </body>
        <body name="finger_right" pos="0 0 {fr3.TCP_M}" gravcomp="1">
          <inertial pos="0 0 0" mass="0.05" diaginertia="1e-5 1e-5 1e-5"/>
          <joint name="finger_right" type="slide" axis="0 -1 0" range="0 {FINGER_STROKE_M}" armature="0.1" damping="8"/>
          {finger.format(n="right", y=-0.006)}
        </body>
      </body>"""
    actuators = "".join(
        f'<position name="joint{i + 1}" joint="joint{i + 1}" kp="{_KP[i]}" kv="{_KV[i]}" '
        f'forcerange="{-_TORQUE_NM[i]} {_TORQUE_NM[i]}"/>'
        for i in range(7)
    )
    fingers = "".join(
        f'<position name="{n}" joint="{n}" kp="900" kv="40" forcerange="-25 25" ctrlrange="0 {FINGER_STROKE_M}"/>'
        for n in ("finger_left", "finger_right")
    )
    return f"""<mujoco model="handrail_{scene.name}">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{timestep_s}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <worldbody>
    <geom name="table" type="box" size="0.6 0.7 0.05" pos="0.45 0 -0.05" rgba="{TABLE_RGBA}"
          friction="0.9 0.01 0.0005"/>
    {scene.target_xml}
    <body name="base"><geom name="base" type="cylinder" size="0.08 0.07" pos="0 0 0.07" rgba="0.92 0.92 0.94 1"
          contype="0" conaffinity="0"/>{"".join(joints)}{hand}{close}</body>
    {scene.object_xml}
  </worldbody>
  <actuator>{actuators}{fingers}</actuator>
</mujoco>"""


def _vector(values: tuple[float, ...]) -> str:
    return " ".join(str(value) for value in values)
