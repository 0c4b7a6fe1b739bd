"""An observation of the form that a config's policy takes: to warm up, and to explain a wrong one."""

from typing import Any

from openpi.policies import aloha_policy, droid_policy, libero_policy
from openpi.training import config as _config

_EXAMPLES = {
    aloha_policy.AlohaInputs: aloha_policy.make_aloha_example,
    droid_policy.DroidInputs: droid_policy.make_droid_example,
    libero_policy.LiberoInputs: libero_policy.make_libero_example,
}


def example_for(train_config: _config.TrainConfig) -> dict[str, Any] | None:
    """An example for the robot of this config; None where the robot is not one of ours."""
    data = train_config.data.create(train_config.assets_dirs, train_config.model)
    for transform in data.data_transforms.inputs:
        if type(transform) in _EXAMPLES:
            return _EXAMPLES[type(transform)]()
    return None
