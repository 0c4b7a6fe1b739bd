import pytest

from openpi_client.base_policy import BasePolicy
from openpi_client.runtime.agents.policy_agent import PolicyAgent
from openpi_client.runtime.environment import Environment
from openpi_client.runtime.runtime import Runtime
from openpi_client.runtime.subscriber import Subscriber


class Log(Environment, Subscriber, BasePolicy):
    """Environment, subscriber and policy in one: writes down what happens, in order."""

    def __init__(self, length=3):
        self.length, self.steps, self.events = length, 0, []

    def reset(self):
        self.events.append("reset")
        self.steps = 0

    def is_episode_complete(self):
        return self.steps >= self.length

    def get_observation(self):
        return {"step": self.steps}

    def infer(self, obs):
        return {"actions": -obs["step"]}

    def apply_action(self, action):
        self.events.append(action["actions"])
        self.steps += 1

    def on_episode_start(self):
        self.events.append("start")

    def on_step(self, observation, action):
        assert action["actions"] == -observation["step"]

    def on_episode_end(self):
        self.events.append("end")


class Quiet(Log):
    """A policy whose resets are not written down."""

    def reset(self):
        pass


def make(log, **options):
    return Runtime(log, PolicyAgent(Quiet()), [log], **options)


def test_episodes_run_in_order_and_the_environment_goes_home():
    log = Log()
    make(log, num_episodes=2).run()
    episode = ["reset", "start", 0, -1, -2, "end"]
    assert log.events == [*episode, *episode, "reset"]


def test_the_step_limit_ends_an_episode():
    log = Log(length=100)
    make(log, max_episode_steps=2).run()
    assert log.events == ["reset", "start", 0, -1, "end", "reset"]


def test_a_thread_can_be_ended_from_outside():
    log = Log(length=10**9)
    runtime = make(log, max_hz=200)
    thread = runtime.run_in_new_thread()
    while len(log.events) < 5:
        pass
    runtime.mark_episode_complete()
    thread.join(5)
    assert not thread.is_alive()
    assert log.events[-2:] == ["end", "reset"]


def test_the_rate_is_kept(monkeypatch):
    slept = []
    now = [0.0]
    monkeypatch.setattr("openpi_client.runtime.runtime.time.monotonic", lambda: now[0])

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("openpi_client.runtime.runtime.time.sleep", sleep)
    make(Log(length=4), max_hz=10).run()
    assert slept == pytest.approx([0.1, 0.1, 0.1])
