"""What the person wants of the gripper."""

from __future__ import annotations

CLOSE = -1.0
OPEN = 1.0


class GripperWish:
    """A wish that stays until the opposite one, or until the person lets go of the arm.

    It ends with the drive: a wish kept over a handback would undo, at the next takeover, what the policy did with
    the gripper in between.
    """

    def __init__(self) -> None:
        self._asked: float | None = None
        self._wish: float | None = None
        self._engaged = False

    def ask(self, wish: float) -> None:
        """Latch a press, however short, until the next `update`."""
        self._asked = wish

    def update(self, *, engaged: bool, held: float | None) -> float | None:
        """Return -1 to close, +1 to open, None to leave the gripper as it is.

        Args:
            engaged: the person drives.
            held: wish of the one trigger that is held now, None for none or both.
        """
        asked, self._asked = self._asked, None
        if not engaged:
            self._wish = None
        elif asked is not None:
            self._wish = asked
        elif not self._engaged:
            self._wish = held  # pulled before the drive button and still held
        self._engaged = engaged
        return self._wish
