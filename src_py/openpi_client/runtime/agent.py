"""Who decides."""

import abc
from typing import Any


class Agent(abc.ABC):
    """Chooses an action for an observation."""

    @abc.abstractmethod
    def get_action(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The action for this observation; at least the key `actions`."""

    @abc.abstractmethod
    def reset(self) -> None:
        """An episode begins."""
