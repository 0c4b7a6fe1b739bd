import dataclasses

import numpy as np
import pytest

from openpi import codecs, transforms
from openpi.codecs import signals
from openpi.training import config as _config
from openpi.training import data_config


@pytest.fixture(scope="module")
def data():
    config = _config.get_config("pi05_positronic_lowmem")
    factory = dataclasses.replace(config.data, tokenizer_path=data_config.SMALL_TOKENIZER)
    return factory.create(config.assets_dirs, config.model)


def recording(codec, length=3):
    """An episode that stands still."""
    example = codec.example()
    still = {key: np.stack([value] * length) for key, value in example.items() if not isinstance(value, str)}
    targets = {
        signals.TARGET_POSE: still.get(signals.EE_POSE, np.tile([0.4, 0, 0.3, 1, 0, 0, 0], (length, 1))),
        signals.TARGET_JOINTS: np.zeros((length, 7)),
        signals.TARGET_GRIP: np.zeros((length, 1)),
    }
    return {**still, **targets, signals.TASK: example[signals.TASK]}


@pytest.mark.parametrize("name", ["ee", "ee_joints", "ee_traj", "ee_joints_traj", "joints_traj"])
def test_training_and_serving_give_the_model_the_same(name, data):
    codec = codecs.get(name)
    columns = codec.training_columns(recording(codec))
    frame = {key: column[0] for key, column in columns.items()}
    frame[codecs.codec.ACTION_COLUMN] = columns[codecs.codec.ACTION_COLUMN]
    trained = transforms.compose([*data.repack_transforms.inputs, *data.data_transforms.inputs])(
        {**frame, "prompt": "do something"}
    )
    served = transforms.compose(data.data_transforms.inputs)(codec.encode(codec.example()))
    assert trained["prompt"] == served["prompt"]
    assert trained.pop("actions").shape == (3, 8)
    np.testing.assert_array_equal(trained["state"], served["state"])
    for camera, image in served["image"].items():
        np.testing.assert_array_equal(trained["image"][camera], image)


def test_outputs_are_the_codec_s_actions(data):
    out = transforms.compose(data.data_transforms.outputs)({"actions": np.zeros((50, 32))})
    assert out["actions"].shape == (50, 8)
    assert data.action_sequence_keys == (codecs.codec.ACTION_COLUMN,)
