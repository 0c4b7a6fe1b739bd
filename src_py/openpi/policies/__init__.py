"""Policies: a model with the transforms of one robot around it."""
