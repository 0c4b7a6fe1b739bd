"""Configs, data, optimisation and checkpoints: what turns demonstrations into weights."""
