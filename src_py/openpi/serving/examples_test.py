import dataclasses

import pytest

from openpi.serving import examples
from openpi.training import config as _config
from openpi_runtime.robots import load_robot


@pytest.mark.parametrize(
    ("config", "robot"),
    [("pi0_aloha_sim_small", "aloha"), ("pi0_droid_small", "droid"), ("pi0_libero_small", "libero")],
)
def test_facts_are_those_of_the_robots_description(config, robot):
    facts, spec = examples.facts_for(_config.get_config(config)), load_robot(robot)
    assert (facts["action_dim"], facts["rate_hz"]) == (len(spec.action), spec.rate_hz)
    assert facts["cameras"]
    assert set(facts["cameras"]) <= {camera.name for camera in spec.cameras if camera.required}


def test_what_a_config_says_itself_counts():
    aloha = _config.get_config("pi0_aloha_sim_small")
    slow = dataclasses.replace(aloha, policy_metadata={"rate_hz": 25, "reset_pose": [0]})
    assert examples.facts_for(slow) == {"action_dim": 14, "rate_hz": 25, "cameras": ["cam_high"], "reset_pose": [0]}


def test_nothing_is_claimed_of_a_robot_that_is_not_known():
    assert examples.facts_for(_config.get_config("debug")) == {}
