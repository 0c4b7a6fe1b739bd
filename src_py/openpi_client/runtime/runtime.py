"""The loop: observe, decide, act, tell, wait for the next step's time."""

import threading
import time
from collections.abc import Sequence

from openpi_client.runtime.agent import Agent
from openpi_client.runtime.environment import Environment
from openpi_client.runtime.subscriber import Subscriber


class Runtime:
    """Runs episodes at no more than `max_hz` (0: as fast as it goes) and `max_episode_steps` (0: without end).

    An episode ends when the environment says so, at the step limit, or by `mark_episode_complete`.
    """

    def __init__(
        self,
        environment: Environment,
        agent: Agent,
        subscribers: Sequence[Subscriber],
        max_hz: float = 0,
        num_episodes: int = 1,
        max_episode_steps: int = 0,
    ) -> None:
        self._environment = environment
        self._agent = agent
        self._subscribers = tuple(subscribers)
        self._period_s = 1 / max_hz if max_hz > 0 else 0.0
        self._num_episodes = num_episodes
        self._max_episode_steps = max_episode_steps
        self._episode_complete = threading.Event()

    def run(self) -> None:
        """Run all episodes in this thread, and bring the environment back to its start afterwards."""
        for _ in range(self._num_episodes):
            self._run_episode()
        self._environment.reset()

    def run_in_new_thread(self) -> threading.Thread:
        """Run all episodes in a thread, which is started and returned."""
        thread = threading.Thread(target=self.run, name="openpi-runtime")
        thread.start()
        return thread

    def mark_episode_complete(self) -> None:
        """End the episode after the step that runs now; any thread may call this."""
        self._episode_complete.set()

    def _run_episode(self) -> None:
        self._environment.reset()
        self._agent.reset()
        self._episode_complete.clear()
        for subscriber in self._subscribers:
            subscriber.on_episode_start()
        steps, due = 0, time.monotonic()
        while not self._episode_complete.is_set():
            self._step()
            steps += 1
            if self._environment.is_episode_complete() or steps == self._max_episode_steps:
                break
            due = max(due + self._period_s, time.monotonic())  # a late step is not made up for by faster ones
            time.sleep(max(0.0, due - time.monotonic()))
        for subscriber in self._subscribers:
            subscriber.on_episode_end()

    def _step(self) -> None:
        observation = self._environment.get_observation()
        action = self._agent.get_action(observation)
        self._environment.apply_action(action)
        for subscriber in self._subscribers:
            subscriber.on_step(observation, action)
