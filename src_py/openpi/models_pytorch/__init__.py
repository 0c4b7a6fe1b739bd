"""PyTorch versions of pi0 and pi0.5, for users who need torch; the JAX models are the reference of this project."""
