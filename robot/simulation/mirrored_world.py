"""The world of another process, as it stood at its last step: for those who look at it from here."""

from __future__ import annotations

from robot.errors import HardwareError
from robot.message_ring import MessageRing
from robot.shared_ring import SharedRing
from robot.simulation.layout import Arrangement
from robot.simulation.place_scene import PLACE_SCENE
from robot.simulation.scene import Scene
from robot.simulation.world import Array, SimulatedWorld
from robot.simulation.world_record import WorldOrder, pack_arrangement, unpack_world


class MirroredWorld(SimulatedWorld):
    """Reads like the world that it mirrors; only the servo moves that one's arm, and only time steps it.

    Args:
        ring: that the world's process writes.
        orders: to have the table laid; None for those who only look.
        scene: of the world that it mirrors.
    """

    def __init__(self, ring: SharedRing, orders: MessageRing | None = None, *, scene: Scene = PLACE_SCENE) -> None:
        super().__init__(start_s=0.0, scene=scene)
        self._ring, self._orders = ring, orders
        self._record = bytearray(ring.record_bytes)
        self._number = -1

    def refresh(self) -> bool:
        """Become what the world is now; False where it has not gone on since the last time."""
        for _ in range(3):  # the writer may have gone round the ring meanwhile
            number = self._ring.count - 1
            if number == self._number:
                return False
            if self._ring.read(number, self._record):
                self._number = number
                self.restore(unpack_world(self._record))
                return True
        return False

    def advance(self, to_s: float) -> None:
        """Become what the world is now: it goes on by itself."""
        self.refresh()

    def lay(self, arrangement: Arrangement) -> None:
        """Have the table laid. Raises HardwareError when the world's process takes no orders."""
        body = pack_arrangement(arrangement)
        if self._orders is None or not self._orders.has_room(len(body)):
            raise HardwareError(
                "simulated world: its process takes no order to lay the table; start the run again"
                if self._orders is not None
                else "simulated world: this process may only look at it; lay the table from the loop"
            )
        self._orders.put(WorldOrder.LAY, body)

    def set_target(self, q_rad: Array, gripper_width_m: float, due_s: float) -> None:
        """Refuse: set-points come from the servo. Raises HardwareError."""
        raise HardwareError("simulated world: a mirror moves nothing; send targets through the servo")
