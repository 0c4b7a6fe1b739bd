"""Golden vectors: a model's outputs, computed with a reference implementation, to hold ours against."""
