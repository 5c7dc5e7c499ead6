"""From a station's task to what it takes to run it."""

from __future__ import annotations

from typing import Protocol

from robot.simulation.insert_layout import InsertLayout, draw_insert_layout
from robot.simulation.insert_scene import INSERT_SCENE, PEG_HALF_LENGTH_M
from robot.simulation.insert_task import InsertTask
from robot.simulation.layout import Arrangement, Layout, Split
from robot.simulation.place_layout import PlaceLayout, draw_place_layout
from robot.simulation.place_scene import PLACE_SCENE
from robot.simulation.place_task import PlaceTask
from robot.simulation.scene import Scene
from robot.simulation.task_config import InsertTaskConfig, PlaceTaskConfig, TaskConfig
from robot.simulation.world import SimulatedWorld


class TaskSetup(Protocol):
    """One task: what stands on its table, how that is laid, and who judges it."""

    @property
    def scene(self) -> Scene:
        """What stands on the table."""
        ...

    @property
    def begins_closed(self) -> bool:
        """True where an episode begins with a closed hand, into which the thing is put."""
        ...

    @property
    def cleared(self) -> Arrangement | None:
        """The table while the arm goes home: what it could be stuck in is out of its way; None where nothing could."""
        ...

    def draw_layout(self, split: Split, seed: int, index: int) -> Layout:
        """Return layout `index` of `seed`."""
        ...

    def task(self, world: SimulatedWorld) -> PlaceTask | InsertTask:
        """Make the judge of a world with this scene."""
        ...


class PlaceSetup:
    """A block is put on a pad."""

    scene, begins_closed, cleared = PLACE_SCENE, False, None

    def __init__(self, config: PlaceTaskConfig) -> None:
        self._config = config

    def draw_layout(self, split: Split, seed: int, index: int) -> PlaceLayout:
        """Return layout `index` of `seed`."""
        return draw_place_layout(split, seed, index)

    def task(self, world: SimulatedWorld) -> PlaceTask:
        """Make the judge of a world with this scene."""
        return PlaceTask(world, tolerance_m=self._config.tolerance_m)


class InsertSetup:
    """A peg is pushed into a socket."""

    scene, begins_closed = INSERT_SCENE, True
    # a hand that is closed on a jammed peg cannot leave: a person takes both away
    cleared = Arrangement(
        object_m=(0.95, -0.6, PEG_HALF_LENGTH_M), object_quat_wxyz=(1.0, 0.0, 0.0, 0.0), target_xy_m=(0.95, 0.6)
    )

    def __init__(self, config: InsertTaskConfig) -> None:
        self._config = config

    def draw_layout(self, split: Split, seed: int, index: int) -> InsertLayout:
        """Return layout `index` of `seed`."""
        return draw_insert_layout(split, seed, index)

    def task(self, world: SimulatedWorld) -> InsertTask:
        """Make the judge of a world with this scene."""
        return InsertTask(world, self._config)


def task_setup(config: TaskConfig) -> TaskSetup:
    """Return what it takes to run a station's task."""
    match config:
        case PlaceTaskConfig():
            return PlaceSetup(config)
        case InsertTaskConfig():
            return InsertSetup(config)
