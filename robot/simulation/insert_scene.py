"""The table of the insertion task: a square peg in the hand and a chamfered socket.

MuJoCo knows no hole, so the socket is walls: four below, four round the chamfer's upper edge, four tilted by 45
degrees between them.
"""

from __future__ import annotations

import math

from robot.simulation.scene import Scene

PEG_HALF_M = 0.012  # half its width
PEG_HALF_LENGTH_M = 0.045
GRIP_ABOVE_CENTRE_M = 0.020  # where the hand holds it, nominally
CLEARANCE_M = 0.002  # a side
CHAMFER_M = 0.006  # as wide as high
RIM_M = 0.040  # height of the socket
FLOOR_M = 0.006
CAPTURE_M = CLEARANCE_M + CHAMFER_M  # an upright peg this far off slides in

_HOLE_HALF_M = PEG_HALF_M + CLEARANCE_M
_OUTER_HALF_M = 0.034
_BODY_RGBA, _CHAMFER_RGBA = "0.13 0.33 0.62 1", "0.95 0.78 0.20 1"
# Smooth plastic, whatever touches it: MuJoCo would take the greater friction of two geoms.
_CONTACT = 'friction="0.2 0.01 0.0002" priority="1" condim="3" solimp="0.95 0.99 0.001" solref="0.006 1"'


def _walls() -> list[tuple[str, str]]:
    """Return (name, geom attributes) of the walls, in the socket's frame: its middle on the table."""
    walls = [("floor", _box((_OUTER_HALF_M, _OUTER_HALF_M, FLOOR_M / 2), (0.0, 0.0, FLOOR_M / 2), _BODY_RGBA))]
    for tier, inner, low, high in (
        ("low", _HOLE_HALF_M, 0.0, RIM_M - CHAMFER_M),
        ("high", _HOLE_HALF_M + CHAMFER_M, RIM_M - CHAMFER_M, RIM_M),
    ):
        thick, middle = (_OUTER_HALF_M - inner) / 2, (_OUTER_HALF_M + inner) / 2
        for name, sign in (("plus", 1.0), ("minus", -1.0)):
            z, half_z = (low + high) / 2, (high - low) / 2
            size_x, size_y = (thick, _OUTER_HALF_M, half_z), (inner, thick, half_z)
            walls.append((f"{tier}_x_{name}", _box(size_x, (sign * middle, 0.0, z), _BODY_RGBA)))
            walls.append((f"{tier}_y_{name}", _box(size_y, (0.0, sign * middle, z), _BODY_RGBA)))
    # a tilted box: its upper face runs from the hole's edge to the rim, its body lies in the walls
    half_face, half_thick = CHAMFER_M / math.sqrt(2.0), 0.003
    sunk = half_thick / math.sqrt(2.0)
    out, up = _HOLE_HALF_M + CHAMFER_M / 2 + sunk, RIM_M - CHAMFER_M / 2 - sunk
    along = _HOLE_HALF_M + CHAMFER_M
    for name, sign in (("plus", 1.0), ("minus", -1.0)):
        size_x, size_y = (half_face, along, half_thick), (along, half_face, half_thick)
        tilt_x, tilt_y = f"0 {-sign * math.pi / 4} 0", f"{sign * math.pi / 4} 0 0"
        walls.append((f"chamfer_x_{name}", _box(size_x, (sign * out, 0.0, up), _CHAMFER_RGBA, tilt_x)))
        walls.append((f"chamfer_y_{name}", _box(size_y, (0.0, sign * out, up), _CHAMFER_RGBA, tilt_y)))
    return walls


def _box(
    half: tuple[float, float, float], middle: tuple[float, float, float], rgba: str, euler_rad: str = "0 0 0"
) -> str:
    size, pos = (" ".join(f"{value:.6f}" for value in values) for values in (half, middle))
    return f'type="box" size="{size}" pos="{pos}" euler="{euler_rad}" rgba="{rgba}" {_CONTACT}'


_WALLS = _walls()
INSERT_SCENE = Scene(
    name="insert",
    target_xml='<body name="target" pos="0.45 0.1 0">'
    + "".join(f'<geom name="{name}" {geom}/>' for name, geom in _WALLS)
    + "</body>",
    object_xml=f"""<body name="object" pos="0.45 -0.2 {PEG_HALF_LENGTH_M}">
      <freejoint name="object"/>
      <geom name="peg" type="box" size="{PEG_HALF_M} {PEG_HALF_M} {PEG_HALF_LENGTH_M}" mass="0.08"
            rgba="0.85 0.16 0.12 1" friction="1.2 0.02 0.0005" condim="4" solimp="0.95 0.99 0.001" solref="0.006 1"/>
    </body>""",
    felt=(("left_finger", "right_finger", "peg"), ("table", *(name for name, _ in _WALLS))),
)
