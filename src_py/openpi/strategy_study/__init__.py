"""Strategies from chunk to controller, compared in simulation with injected delays."""
