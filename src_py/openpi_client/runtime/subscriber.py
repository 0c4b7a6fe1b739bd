"""Who watches."""

import abc
from typing import Any


class Subscriber(abc.ABC):
    """Is told about every step: for recording, display, statistics."""

    @abc.abstractmethod
    def on_episode_start(self) -> None:
        """Environment and agent are reset."""

    @abc.abstractmethod
    def on_step(self, observation: dict[str, Any], action: dict[str, Any]) -> None:
        """An action was applied."""

    @abc.abstractmethod
    def on_episode_end(self) -> None:
        """The last step of the episode is done."""
