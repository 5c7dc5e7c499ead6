"""Cameras to one synchronised observation."""
