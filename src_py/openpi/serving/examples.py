"""What a policy server knows of a config's robot: an observation of the form that it takes, and facts for clients."""

from typing import Any

from openpi.policies import aloha_policy, droid_policy, libero_policy
from openpi.training import config as _config

_EXAMPLES = {
    aloha_policy.AlohaInputs: aloha_policy.make_aloha_example,
    droid_policy.DroidInputs: droid_policy.make_droid_example,
    libero_policy.LiberoInputs: libero_policy.make_libero_example,
}

# By what makes a policy's actions the robot's. Cameras: those that the policy cannot do without.
_FACTS: dict[type, dict[str, Any]] = {
    aloha_policy.AlohaOutputs: {"action_dim": 14, "rate_hz": 50, "cameras": ["cam_high"]},
    droid_policy.DroidOutputs: {"action_dim": 8, "rate_hz": 15, "cameras": ["exterior", "wrist"]},
    libero_policy.LiberoOutputs: {"action_dim": 7, "rate_hz": 20, "cameras": ["agentview", "eye_in_hand"]},
}


def example_for(train_config: _config.TrainConfig) -> dict[str, Any] | None:
    """An example to warm up with, and to explain a wrong one; None where the robot is not one of ours."""
    data = train_config.data.create(train_config.assets_dirs, train_config.model)
    for transform in data.data_transforms.inputs:
        if type(transform) in _EXAMPLES:
            return _EXAMPLES[type(transform)]()
    return None


def facts_for(train_config: _config.TrainConfig) -> dict[str, Any]:
    """Metadata by which a client can tell that the policy is for another robot than its own.

    The config's `policy_metadata`, with action_dim, rate_hz [Hz] and cameras (names as in our robots' descriptions)
    where it does not say them itself and the robot is one of ours.
    """
    data = train_config.data.create(train_config.assets_dirs, train_config.model)
    known = (_FACTS.get(type(transform), {}) for transform in data.data_transforms.outputs)
    return {**next(filter(None, known), {}), **(train_config.policy_metadata or {})}
