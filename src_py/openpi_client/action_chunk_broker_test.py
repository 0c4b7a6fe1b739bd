import numpy as np
import pytest

from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.base_policy import BasePolicy


class Counting(BasePolicy):
    def __init__(self):
        self.calls, self.resets = 0, 0

    def infer(self, obs):
        self.calls += 1
        actions = np.arange(6).reshape(3, 2) + 10 * self.calls
        rest = {"list": [np.arange(3)], "text": "x", "timing": {"ms": 1.5}}
        return {"actions": actions, "nested": {"a": np.arange(3)}, **rest}

    def reset(self):
        self.resets += 1


def test_plays_the_chunk_and_asks_again_after_the_horizon():
    policy = Counting()
    broker = ActionChunkBroker(policy, 2)
    steps = [broker.infer({})["actions"].tolist() for _ in range(5)]
    assert steps == [[10, 11], [12, 13], [20, 21], [22, 23], [30, 31]]
    assert policy.calls == 3


def test_arrays_are_cut_wherever_they_are_and_the_rest_is_handed_on():
    broker = ActionChunkBroker(Counting(), 3)
    broker.infer({})
    second = broker.infer({})
    assert second["nested"]["a"] == 1
    assert second["list"] == [1]
    assert (second["text"], second["timing"]) == ("x", {"ms": 1.5})


def test_reset_drops_the_chunk():
    policy = Counting()
    broker = ActionChunkBroker(policy, 3)
    broker.infer({})
    broker.reset()
    assert broker.infer({})["actions"].tolist() == [20, 21]
    assert policy.resets == 1


def test_a_chunk_has_steps():
    with pytest.raises(ValueError, match="at least one step"):
        ActionChunkBroker(Counting(), 0)
