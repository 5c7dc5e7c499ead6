"""One colour per source, in the operator's window and in the report alike."""

from __future__ import annotations

from teleop.arbiter import Source

Colour = tuple[int, int, int]

# Told apart by brightness too, and the word stands beside the colour.
SOURCE_COLOURS: dict[Source, Colour] = {
    Source.POLICY: (38, 96, 180),
    Source.HUMAN: (226, 125, 36),
    Source.HOLD: (176, 42, 48),
    Source.RESET: (98, 84, 140),
}
