"""Camera intrinsics and extrinsics that a station points to and a bundle was trained with."""
