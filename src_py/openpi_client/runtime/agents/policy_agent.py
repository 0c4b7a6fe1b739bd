"""An agent that asks a policy."""

from typing import Any

from openpi_client import base_policy
from openpi_client.runtime.agent import Agent


class PolicyAgent(Agent):
    """Hands observations to a policy, local or remote."""

    def __init__(self, policy: base_policy.BasePolicy) -> None:
        self._policy = policy

    def get_action(self, observation: dict[str, Any]) -> dict[str, Any]:
        return self._policy.infer(observation)

    def reset(self) -> None:
        self._policy.reset()
