"""Stacks of nodes, described once as data, and what starts them."""
