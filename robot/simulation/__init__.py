"""The simulated world: an FR3-like arm, a block, a target and their physics."""
