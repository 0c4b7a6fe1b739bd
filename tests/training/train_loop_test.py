"""The loop from data set to checkpoints, on a tiny model."""

import dataclasses
import importlib.util
import json
import pathlib
import shutil
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from openpi.models import model as _model
from openpi.shared import nested
from openpi.training import checkpoints, metrics, options, train_loop, train_state, weight_loaders
from openpi.training.metrics_test import FakeWandb


def losses(folder: pathlib.Path) -> list[float]:
    return [row["loss"] for row in metrics.read_metrics(folder) if "loss" in row]


@pytest.fixture(scope="module")
def whole(tiny_below: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, FakeWandb]:
    """A run that nothing happens to, with validation and trackers: its config, last state, and what W&B was told."""
    config = tiny_below(
        tmp_path_factory.mktemp("whole"),
        "whole",
        save_interval=1,
        keep_period=1,
        wandb_enabled=True,
        loop=options.LoopOptions(
            val_fraction=0.25,
            val_interval=3,
            val_batches=1,
            tensorboard=importlib.util.find_spec("tensorboardX") is not None,
        ),
    )
    return config, *with_wandb(config)


def with_wandb(config: Any, **arguments: Any) -> tuple[Any, FakeWandb]:
    """The last state of the run, and what it told W&B."""
    fake = FakeWandb()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", fake)
        patch.delenv("WANDB_MODE", raising=False)
        return train_loop.train(config, **arguments), fake


def saved_steps(folder: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_a_run_leaves_checkpoints_numbers_and_a_picture(whole: Any) -> None:
    config, state, _ = whole
    assert int(state.step) == 6
    folder = config.checkpoint_dir
    assert saved_steps(folder) == [1, 2, 3, 4, 5]
    stats = checkpoints.load_norm_stats(folder / "5" / "assets", "tiny")
    assert stats["actions"].mean.shape == (14,)
    rows = metrics.read_metrics(folder)
    assert [row["step"] for row in rows if "loss" in row] == list(range(6))
    assert all(np.isfinite(row["loss"]) and 0 <= row["data_wait_share"] <= 1 for row in rows if "loss" in row)
    validations = [row for row in rows if "val_loss" in row]
    assert [row["step"] for row in validations] == [3, 5]
    by_dim = [validations[0][f"val_action_error/{dim}"] for dim in range(14)]
    assert validations[0]["val_action_error"] == pytest.approx(np.mean(by_dim), rel=1e-5)
    picture = np.asarray(Image.open(folder / train_loop.FIRST_BATCH_FILE))
    assert picture.shape == (4 * 28, 3 * 28, 3)
    weights = _model.restore_params(folder / "5" / "params")
    averaged = jax.tree.leaves(state.ema_params.to_pure_dict())
    for saved, kept in zip(jax.tree.leaves(weights), averaged, strict=True):
        np.testing.assert_array_equal(saved, kept)


def test_trackers_are_told_what_the_file_says(whole: Any) -> None:
    config, _, wandb = whole
    (init,) = wandb.inits
    assert (init["project"], init["name"]) == ("openpi", "whole")
    assert init["config"]["batch_size"] == 4
    pictures, *numbers = wandb.logged
    assert pictures == ({"first_batch": [(28, 3 * 28, 3)] * 4}, 0)
    rows = metrics.read_metrics(config.checkpoint_dir)
    assert [{"step": step, **values} for values, step in numbers] == rows
    assert set(rows[0]) == {
        *("step", "loss", "grad_norm", "param_norm", "learning_rate", "samples_per_s", "data_wait_share")
    }
    assert wandb.finished == 1
    if config.loop.tensorboard:
        (events,) = (config.checkpoint_dir / "tensorboard").iterdir()
        for name in (b"loss", b"val_action_error/13", b"first_batch"):
            assert name in events.read_bytes()


def cut_after(step: int, folder: pathlib.Path) -> None:
    """Leaves a run as if it had been killed before it saved anything after `step`."""
    for saved in saved_steps(folder):
        if saved > step:
            shutil.rmtree(folder / str(saved))


def test_resume_gives_the_numbers_of_an_uninterrupted_run(whole: Any, tmp_path: pathlib.Path) -> None:
    """Resumed at a step at which it saves and validates, with a worker process, in the same W&B run."""
    config = dataclasses.replace(
        whole[0], exp_name="resumed", checkpoint_base_dir=str(tmp_path), resume=True, num_workers=1
    )
    folder = shutil.copytree(whole[0].checkpoint_dir, config.checkpoint_dir)
    cut_after(2, folder)
    (folder / metrics.WANDB_ID_FILE).write_text("the-same")
    state, wandb = with_wandb(config)
    assert int(state.step) == 6
    assert losses(folder) == losses(whole[0].checkpoint_dir)
    assert validations(folder) == validations(whole[0].checkpoint_dir)
    assert saved_steps(folder) == [1, 2, 3, 4, 5]
    assert [init["id"] for init in wandb.inits] == ["the-same"]
    assert [step for _, step in wandb.logged] == [3, 3, 4, 5, 5]


def validations(folder: pathlib.Path) -> list[dict[str, float]]:
    return [row for row in metrics.read_metrics(folder) if "val_loss" in row]


def test_lora_starts_from_a_checkpoint_without_it_and_resumes(
    whole: Any, tiny: Any, tiny_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen weights stay as loaded, in bfloat16; with the simulated delays of real-time chunking."""
    model = dataclasses.replace(tiny.model(adapters=True), max_simulated_delay=2)
    config = tiny_run(
        "lora",
        model=model,
        weight_loader=weight_loaders.CheckpointWeightLoader(str(whole[0].checkpoint_dir / "5" / "params")),
        freeze_filter=model.get_freeze_filter(),
        ema_decay=None,
        num_train_steps=3,
        save_interval=1,
        keep_period=1,
    )
    train_loop.train(config)
    folder = config.checkpoint_dir
    uninterrupted = losses(folder)
    cut_after(1, folder)
    monkeypatch.setattr(weight_loaders.CheckpointWeightLoader, "load", None)  # not loaded again
    state = train_loop.train(dataclasses.replace(config, resume=True))
    assert losses(folder) == uninterrupted
    assert len(uninterrupted) == 3
    loaded = nested.flatten_dict(_model.restore_params(whole[0].checkpoint_dir / "5" / "params"))
    params = nested.flatten_dict(nnx.to_pure_dict(state.params))
    trainable = set(nested.flatten_dict(nnx.to_pure_dict(state.params.filter(config.trainable_filter))))
    frozen = set(params) - trainable
    assert {path for path in params if "lora" in path} == set(params) - set(loaded) != set()
    assert not any("lora" in path for path in frozen)
    for path in frozen:
        np.testing.assert_array_equal(params[path], loaded[path].astype(jnp.bfloat16), err_msg=path)
    assert {params[path].dtype.name for path in trainable} == {"float32"}
    assert sum((params[path] != loaded[path]).any() for path in trainable & set(loaded)) > 5
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert len(moments) == 2 * len(trainable)
    saved = nested.flatten_dict(_model.restore_params(folder / "2" / "params"))
    assert {saved[path].dtype.name for path in frozen} == {"bfloat16"}


def test_an_existing_run_is_neither_mixed_nor_lost(
    whole: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = whole[0]
    before = (config.checkpoint_dir / "metrics.jsonl").read_text()
    with pytest.raises(FileExistsError, match="--resume"):
        train_loop.train(config)
    overwriting = dataclasses.replace(config, overwrite=True)
    with pytest.raises(ValueError, match="openpi norm-stats"):
        train_loop.train(dataclasses.replace(overwriting, assets_base_dir="/nowhere"))
    no_weights = weight_loaders.CheckpointWeightLoader(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train_loop.train(dataclasses.replace(overwriting, weight_loader=no_weights))
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        train_loop.train(dataclasses.replace(overwriting, loop=dataclasses.replace(config.loop, tensorboard=True)))
    assert (config.checkpoint_dir / "metrics.jsonl").read_text() == before
    assert saved_steps(config.checkpoint_dir) == [1, 2, 3, 4, 5]


def test_metrics_past_the_checkpoint_are_dropped_on_resume(tmp_path: pathlib.Path) -> None:
    path = tmp_path / metrics.METRICS_FILE
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(5)) + '{"step": 5, "lo')
    sink = metrics.JsonlSink(tmp_path, start_step=3)
    sink.scalars(3, {"loss": 0.5})
    sink.close()
    assert [(row["step"], row["loss"]) for row in metrics.read_metrics(tmp_path)] == [
        (0, 1.0),
        (1, 1.0),
        (2, 1.0),
        (3, 0.5),
    ]


def test_batch_that_does_not_split_is_an_error(tiny_run: Any) -> None:
    config = tiny_run("split", loop=options.LoopOptions(grad_accum_steps=3))
    with pytest.raises(ValueError, match="batch_size 4 is no multiple of 3"):
        train_loop.train(config)


def test_a_dataset_of_ones_own(tiny: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the state is donated: what a step starts from makes room for what it gives."""

    class Mine:
        def __init__(self) -> None:
            observation, actions = tiny.FAKE.model.inputs_spec()
            self.spec = {**observation.to_dict(), "actions": actions}

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: Any) -> Any:
            return jax.tree.map(lambda spec: np.full(spec.shape[1:], index, spec.dtype), self.spec)

    init = train_state.init_train_state
    config = dataclasses.replace(tiny.FAKE, exp_name="mine", checkpoint_base_dir=str(tmp_path), num_train_steps=2)
    begin = []
    monkeypatch.setattr(train_state, "init_train_state", lambda *a, **k: begin.append(init(*a, **k)) or begin[0])
    assert int(train_loop.train(config, dataset=Mine()).step) == 2
    ((state, _),) = begin
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.opt_state, state.ema_params)))
