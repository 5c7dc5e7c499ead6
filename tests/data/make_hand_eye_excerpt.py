"""Makes the hand-eye files of this folder from the whole recordings: fewer rows of the arm, fewer digits.

python tests/data/make_hand_eye_excerpt.py FOLDER_WITH_THE_RECORDINGS
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SOURCE = Path(sys.argv[1])
for name, every in (("robot", 5), ("target", 1)):
    rows = np.loadtxt(SOURCE / f"hand_eye_real_{name}.csv", delimiter=",")[::every]
    rows[:, 0] -= 1487321563.0
    lines = [f"{row[0]:.4f}," + ",".join(f"{value:.6f}" for value in row[1:]) for row in rows]
    (HERE / f"hand_eye_{name}.csv").write_text("\n".join(lines) + "\n")
