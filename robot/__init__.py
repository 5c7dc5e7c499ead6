"""What the arm is, its clock and its last gate."""
