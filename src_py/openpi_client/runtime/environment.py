"""The robot and its surroundings."""

import abc
from typing import Any


class Environment(abc.ABC):
    """What the runtime loop observes and moves."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Go to the start of an episode, before it begins and after the last one."""

    @abc.abstractmethod
    def is_episode_complete(self) -> bool:
        """Whether the episode ended by itself."""

    @abc.abstractmethod
    def get_observation(self) -> dict[str, Any]:
        """What the agent sees now."""

    @abc.abstractmethod
    def apply_action(self, action: dict[str, Any]) -> None:
        """Do one step."""
