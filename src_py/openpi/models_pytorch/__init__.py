"""PyTorch versions of pi0 and pi0.5, for users who need torch; the JAX models are the reference of this project."""

import importlib.util


def require_torch() -> None:
    """Say what to install where PyTorch is missing.

    Raises:
        ImportError: it is.
    """
    if importlib.util.find_spec("torch") is None:
        raise ImportError("This needs PyTorch, which is not installed: pip install torch.")
