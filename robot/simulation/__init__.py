"""The simulated world: an FR3-like arm, a table, what a task puts on it, and their physics."""
