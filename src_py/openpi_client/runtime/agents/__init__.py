"""Agents that the runtime loop can drive."""
