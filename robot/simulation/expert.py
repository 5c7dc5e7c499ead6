"""The scripted experts that demonstrate the tasks."""

from __future__ import annotations

from robot.arm_state import ArmState
from robot.simulation.insert_expert import InsertStyle, insert_motion
from robot.simulation.insert_task import InsertTask
from robot.simulation.motion import Motion
from robot.simulation.place_expert import PlaceStyle, place_motion
from robot.simulation.place_task import PlaceTask


def expert_motion(task: PlaceTask | InsertTask, state: ArmState) -> Motion:
    """Return what the task's expert does now."""
    match task:
        case PlaceTask():
            return place_motion(task.truth(state), state, PlaceStyle())
        case InsertTask():
            return insert_motion(task.truth(state), state, InsertStyle())
