"""The loop from data set to checkpoints, on a tiny model."""

import concurrent.futures
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from openpi.models import model as _model
from openpi.training import checkpoints, metrics, options, train_loop


def losses(folder: pathlib.Path) -> list[float]:
    return [row["loss"] for row in metrics.read_metrics(folder) if "loss" in row]


def test_a_run_leaves_checkpoints_numbers_and_a_picture(tiny_run: Any) -> None:
    config = tiny_run("whole", loop=options.LoopOptions(val_fraction=0.25, val_interval=2, val_batches=1))
    state = train_loop.train(config)
    assert int(state.step) == 6
    folder = config.checkpoint_dir
    assert (folder / "5" / "params").is_dir()
    stats = checkpoints.load_norm_stats(folder / "5" / "assets", "tiny")
    assert stats["actions"].mean.shape == (14,)
    rows = metrics.read_metrics(folder)
    assert [row["step"] for row in rows if "loss" in row] == list(range(6))
    assert all(np.isfinite(row["loss"]) and 0 <= row["data_wait_share"] <= 1 for row in rows if "loss" in row)
    validations = [row for row in rows if "val_loss" in row]
    assert [row["step"] for row in validations] == [2, 4]
    by_dim = [validations[0][f"val_action_error/{dim}"] for dim in range(14)]
    assert validations[0]["val_action_error"] == pytest.approx(np.mean(by_dim), rel=1e-5)
    picture = np.asarray(Image.open(folder / train_loop.FIRST_BATCH_FILE))
    assert picture.shape == (4 * 28, 3 * 28, 3)
    weights = _model.restore_params(folder / "5" / "params")
    averaged = jax.tree.leaves(state.ema_params.to_pure_dict())
    for saved, kept in zip(jax.tree.leaves(weights), averaged, strict=True):
        np.testing.assert_array_equal(saved, kept)


def test_resume_gives_the_losses_of_an_uninterrupted_run(tiny_run: Any) -> None:
    whole = tiny_run("uninterrupted")
    train_loop.train(whole)
    first = tiny_run("resumed", num_train_steps=3)
    train_loop.train(first)
    resumed = dataclasses.replace(first, num_train_steps=6, resume=True)
    state = train_loop.train(resumed)
    assert int(state.step) == 6
    assert losses(resumed.checkpoint_dir) == losses(whole.checkpoint_dir)


def test_an_existing_run_is_neither_mixed_nor_lost(tiny_run: Any) -> None:
    config = tiny_run("twice", num_train_steps=1)
    train_loop.train(config)
    before = (config.checkpoint_dir / "metrics.jsonl").read_text()
    with pytest.raises(FileExistsError, match="--resume"):
        train_loop.train(config)
    broken = dataclasses.replace(config, overwrite=True, assets_base_dir="/nowhere")
    with pytest.raises(ValueError, match="openpi norm-stats"):
        train_loop.train(broken)
    assert (config.checkpoint_dir / "metrics.jsonl").read_text() == before


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


class Loss:
    """Stands in for an array on a device, whose step is done or not."""

    def __init__(self, ready: bool) -> None:
        self.ready = ready

    def is_ready(self) -> bool:
        return self.ready

    def block_until_ready(self) -> None:
        """Done at once."""


class Immediate(concurrent.futures.Executor):
    def submit(self, call: Any, *args: Any) -> concurrent.futures.Future:
        future: concurrent.futures.Future = concurrent.futures.Future()
        future.set_result(call(*args))
        return future


def slow_batches() -> Iterator[int]:
    time.sleep(0.02)
    yield 1


@pytest.mark.parametrize(("ready", "least_s"), [(True, 0.02), (False, 0.0)])
def test_only_a_step_that_is_done_waits_for_data(ready: bool, least_s: float) -> None:
    batch, waited_s = train_loop._next_batch(slow_batches(), {"loss": Loss(ready)}, Immediate(), last=False)
    assert batch == 1
    assert waited_s >= least_s
    assert (waited_s > 0) == ready


def test_batch_that_does_not_split_is_an_error(tiny_run: Any) -> None:
    config = tiny_run("split", loop=options.LoopOptions(grad_accum_steps=3))
    with pytest.raises(ValueError, match="batch_size 4 is no multiple of 3"):
        train_loop.train(config)


def test_a_dataset_of_ones_own(tiny: Any, tmp_path: pathlib.Path) -> None:
    class Mine:
        def __init__(self) -> None:
            observation, actions = tiny.FAKE.model.inputs_spec()
            self.spec = {**observation.to_dict(), "actions": actions}

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: Any) -> Any:
            return jax.tree.map(lambda spec: np.full(spec.shape[1:], index, spec.dtype), self.spec)

    config = dataclasses.replace(tiny.FAKE, exp_name="mine", checkpoint_base_dir=str(tmp_path), num_train_steps=2)
    assert int(train_loop.train(config, dataset=Mine()).step) == 2
