"""From episodes to (Observation, actions): order of transforms, errors, skipping, frameworks."""

import dataclasses
import itertools
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from openpi import transforms
from openpi.models import pi0_fast
from openpi.training import config as _config
from openpi.training import data_loader, options
from openpi.training.datasets import BadSampleError, LeRobotDataset


@dataclasses.dataclass(frozen=True)
class Note(transforms.DataTransformFn):
    """Writes down that it was called, and with which state."""

    name: str
    log: list

    def __call__(self, data: dict) -> dict:
        self.log.append((self.name, float(np.ravel(data["state"])[0])))
        return data


def take(loader: Any, count: int) -> list[Any]:
    return list(itertools.islice(iter(loader), count))


def test_transforms_come_in_the_order_of_the_reference(tiny: Any) -> None:
    log: list[tuple[str, float]] = []
    stats = {"state": transforms.NormStats(mean=np.array([2.0]), std=np.array([1.0]))}
    data_config = _config.DataConfig(
        repo_id="own",
        norm_stats=stats,
        repack_transforms=transforms.Group(inputs=[Note("repack", log)]),
        data_transforms=transforms.Group(inputs=[Note("robot", log)]),
        model_transforms=transforms.Group(inputs=[Note("model", log)]),
    )
    dataset = data_loader.transform_dataset([{"state": np.array([5.0])}], data_config)
    assert float(dataset[0]["state"][0]) == pytest.approx(3.0, abs=1e-4)
    assert [name for name, _ in log] == ["repack", "robot", "model"]
    assert [value for _, value in log] == pytest.approx([5.0, 5.0, 3.0], abs=1e-4)
    raw = data_loader.transform_dataset([{"state": np.array([5.0])}], data_config, skip_norm_stats=True)
    assert float(raw[0]["state"][0]) == 5.0


def test_missing_statistics_name_the_command(tiny_run: Any) -> None:
    config = tiny_run("none", assets_base_dir="/nowhere")
    command = rf"`openpi norm-stats (\S+:)?tiny --input-path {config.data.repo_id}`"
    with pytest.raises(ValueError, match=f"statistics in /nowhere/tiny/tiny. Make them with {command}"):
        data_loader.create_data_loader(config)
    observation, actions = take(data_loader.create_data_loader(config, skip_norm_stats=True), 1)[0]
    assert observation.state.shape == (4, 14)
    assert actions.shape == (4, 4, 14)


def test_batches_are_on_the_devices_in_the_model_s_format(tiny_run: Any) -> None:
    config = tiny_run("format")
    loader = data_loader.create_data_loader(config, num_batches=2)
    batches = list(loader)
    assert len(batches) == 2
    observation, actions = batches[0]
    assert isinstance(actions, jax.Array)
    assert actions.dtype == np.float32
    assert observation.images["base_0_rgb"].shape == (4, 28, 28, 3)
    assert -1 <= float(observation.images["base_0_rgb"].min()) <= float(observation.images["base_0_rgb"].max()) <= 1
    assert observation.tokenized_prompt.shape == (4, 8)
    assert loader.data_config().asset_id == "tiny"


def test_resumed_loader_goes_on_in_the_middle_of_an_epoch(tiny_run: Any) -> None:
    config = tiny_run("resume")
    whole = take(data_loader.create_data_loader(config, shuffle=True), 15)
    rest = take(data_loader.create_data_loader(config, shuffle=True, start_batch=13), 2)
    for (_, expected), (_, actions) in zip(whole[13:], rest, strict=True):
        np.testing.assert_array_equal(actions, expected)


def test_samples_kept_in_memory_are_made_once(tiny_run: Any) -> None:
    plain = tiny_run("kept", batch_size=16)
    kept = dataclasses.replace(plain, loop=options.LoopOptions(keep_in_memory=True))
    data_config = kept.data.create(kept.assets_dirs, kept.model)
    source = data_loader.create_torch_dataset(data_config, kept.model.action_horizon, kept.model)
    read: list[int] = []

    class Counted:
        def __len__(self) -> int:
            return len(source)

        def __getitem__(self, index: Any) -> Any:
            read.append(int(index))
            return source[index]

    batches = take(data_loader.create_data_loader(kept, shuffle=True, dataset=Counted()), 7)
    assert set(read) == set(range(48))
    assert len(read) <= 48 + 3  # a few are looked at before, for their shapes
    wanted = take(data_loader.create_data_loader(plain, shuffle=True), 7)
    for (_, actions), (_, expected) in zip(batches, wanted, strict=True):
        np.testing.assert_array_equal(actions, expected)


def test_fake_data_needs_no_statistics(tiny: Any) -> None:
    first = take(data_loader.create_data_loader(tiny.FAKE), 2)
    again = take(data_loader.create_data_loader(tiny.FAKE), 2)
    np.testing.assert_array_equal(first[1][1], again[1][1])
    assert not np.array_equal(first[0][1], first[1][1])


@pytest.mark.parametrize("kind", ["pi0", "pi0.5", "pi0-FAST"])
def test_fake_samples_have_the_model_s_input_spec(tiny: Any, kind: str) -> None:
    fast = pi0_fast.Pi0FASTConfig(action_dim=8, action_horizon=4, max_token_len=16)
    model = fast if kind == "pi0-FAST" else tiny.model(pi05=kind == "pi0.5")
    observation, actions = model.inputs_spec(batch_size=1)
    wanted = {**observation.to_dict(), "actions": actions}
    sample = data_loader.FakeDataset(model, 3)[2]
    shapes = jax.tree.map(lambda array: ((1, *array.shape), np.dtype(array.dtype)), sample)
    assert shapes == jax.tree.map(lambda spec: (spec.shape, np.dtype(spec.dtype)), wanted)


def test_only_the_chosen_episodes_are_loaded(tiny_run: Any, episodes_root: pathlib.Path) -> None:
    loader = data_loader.create_data_loader(tiny_run("chosen"), episodes=[1, 3], num_batches=6, skip_norm_stats=True)
    loaded = np.concatenate([observation.state for observation, _ in loader])
    every = data_loader.create_data_loader(tiny_run("all"), num_batches=12, skip_norm_stats=True)
    states = np.concatenate([observation.state for observation, _ in every]).reshape(4, 12, 14)
    np.testing.assert_array_equal(loaded.reshape(2, 12, 14), states[[1, 3]])


def test_only_the_cameras_that_are_used_are_decoded(tiny: Any, episodes_root: pathlib.Path) -> None:
    data_config = _config.DataConfig(
        repo_id=str(episodes_root),
        action_sequence_keys=("action",),
        repack_transforms=transforms.Group(
            inputs=[transforms.RepackTransform({"state": "observation.state", "actions": "action"})]
        ),
    )
    dataset = data_loader.create_torch_dataset(data_config, 3, tiny.TINY.model)
    assert isinstance(dataset, LeRobotDataset)
    assert "observation.images.top" not in dataset[0]
    assert dataset[0]["action"].shape == (3, 14)


def test_prompt_comes_from_the_task(tiny: Any, episodes_root: pathlib.Path) -> None:
    data_config = _config.DataConfig(
        repo_id=str(episodes_root), action_sequence_keys=("action",), prompt_from_task=True
    )
    assert data_loader.create_torch_dataset(data_config, 2, tiny.TINY.model)[0]["prompt"] == "push"


def test_a_key_the_dataset_lacks_names_dataset_episode_and_frame(tiny: Any, episodes_root: pathlib.Path) -> None:
    data_config = _config.DataConfig(
        repo_id=str(episodes_root),
        action_sequence_keys=("action",),
        repack_transforms=transforms.Group(inputs=[transforms.RepackTransform({"state": "observation.joints"})]),
    )
    dataset = data_loader.create_torch_dataset(data_config, 2, tiny.TINY.model)
    broken = data_loader.transform_dataset(dataset, data_config, skip_norm_stats=True)
    with pytest.raises(BadSampleError, match=r"episode 1, frame 3: a transform failed: .*observation.joints"):
        broken[15]


def test_no_repo_id_is_an_error(tiny: Any) -> None:
    with pytest.raises(ValueError, match="no repo_id"):
        data_loader.create_torch_dataset(_config.DataConfig(), 2, tiny.TINY.model)


def test_rlds_needs_an_action_space() -> None:
    with pytest.raises(ValueError, match="rlds_data_dir and action_space"):
        data_loader.create_rlds_dataset(_config.DataConfig(), 2, 2)


def test_stream_is_transformed_sample_by_sample() -> None:
    class Double(transforms.DataTransformFn):
        def __call__(self, data: dict) -> dict:
            assert data["x"].shape == (2,)
            return {"x": 2 * data["x"]}

    stream = data_loader.IterableTransformedDataset([{"x": np.ones((3, 2))}], [Double()], is_batched=True)
    np.testing.assert_array_equal(next(iter(stream))["x"], np.full((3, 2), 2.0))


def test_torch_tensors_where_torch_is_installed(tiny: Any, tiny_run: Any) -> None:
    try:
        import torch
    except ImportError:
        with pytest.raises(ImportError, match="pip install torch"):
            data_loader.create_data_loader(tiny.FAKE, framework="pytorch")
        return
    for config in (tiny.FAKE, tiny_run("torch")):
        loader = data_loader.create_data_loader(config, framework="pytorch", num_batches=1)
        ((observation, actions),) = loader
        assert {type(leaf) for leaf in jax.tree.leaves((observation, actions))} == {torch.Tensor}
        assert actions.shape == (4, 4, 14)
        assert observation.images["base_0_rgb"].dtype == torch.float32


def test_unknown_framework() -> None:
    with pytest.raises(ValueError, match="allowed: 'jax', 'pytorch'"):
        data_loader.TorchDataLoader([{"x": np.ones(1)}], 1, framework="tensorflow")
