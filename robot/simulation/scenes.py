"""The scenes by the names that processes tell each other."""

from __future__ import annotations

from typing import Literal

from robot.simulation.insert_scene import INSERT_SCENE
from robot.simulation.place_scene import PLACE_SCENE
from robot.simulation.scene import Scene

SceneName = Literal["place", "insert"]


def scene_named(name: SceneName) -> Scene:
    """Return the scene of a task."""
    match name:
        case "place":
            return PLACE_SCENE
        case "insert":
            return INSERT_SCENE
