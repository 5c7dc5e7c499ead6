"""The table of the place task: a block to be grasped and a pad to put it on."""

from __future__ import annotations

from robot.simulation.scene import Scene

BLOCK_HALF_M = 0.02
PAD_HALF_M = 0.022

PLACE_SCENE = Scene(
    name="place",
    target_xml=f"""<body name="target" pos="0.45 0.1 0">
      <geom name="pad" type="box" size="{PAD_HALF_M} {PAD_HALF_M} 0.0005" pos="0 0 0.0005" rgba="0.10 0.35 0.80 1"
            contype="0" conaffinity="0"/>
    </body>""",
    object_xml=f"""<body name="object" pos="0.45 -0.1 {BLOCK_HALF_M}">
      <freejoint name="object"/>
      <geom name="block" type="box" size="{BLOCK_HALF_M} {BLOCK_HALF_M} {BLOCK_HALF_M}" mass="0.06"
            rgba="0.85 0.16 0.12 1" friction="1.2 0.02 0.0005" condim="4" solimp="0.95 0.99 0.001" solref="0.006 1"/>
    </body>""",
)
