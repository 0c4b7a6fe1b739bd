"""What every policy, local or remote, looks like to the code that drives a robot."""

import abc
from typing import Any


class BasePolicy(abc.ABC):
    """Maps one observation to one result.

    Both are nested dictionaries with string keys; leaves are numpy arrays, numbers, booleans or strings.
    """

    @abc.abstractmethod
    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Return at least `actions`, an array [horizon, action_dim] in the robot's units."""

    def reset(self) -> None:
        """Forget everything that belongs to the episode just ended. Stateless policies have nothing to forget."""
        return
