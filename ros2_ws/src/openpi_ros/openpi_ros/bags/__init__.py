"""Recorded runs of a robot, read back by its description."""
