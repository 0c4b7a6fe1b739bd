"""The named configs that ship with openpi, one file a robot."""

from openpi.training.configs import aloha, debug, droid, libero, polaris, positronic, roboarena
from openpi.training.train_config import TrainConfig

ALL: list[TrainConfig] = [
    config for module in (aloha, droid, libero, debug, roboarena, polaris, positronic) for config in module.CONFIGS
]
