"""The reference's three training steps, from its start parameters, batch and settings."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx, traverse_util

from openpi.models import gemma, pi0_config, siglip
from openpi.models import model as _model
from openpi.training import checkpoints, optimizer, sharding, train_loop, train_state, train_step, utils
from openpi.training import config as _config

TOLERANCE = 1e-4
# As the reference's XLA compiled: since then small products go to YNNPACK, whose rounding errors are twice as large,
# and reciprocal roots have a bias.
AS_THE_REFERENCE = {"xla_cpu_experimental_ynn_fusion_type": "", "xla_cpu_enable_platform_dependent_math": False}
# Rounding changes a gradient by 1e-5 of its parameter's typical one. Where it is not much larger than that, Adam
# divides noise by its own size and moves an entry by up to the learning rate, a third of the peak in the first step.
NOISE = 1e-4
FIRST_RATE = 1e-3 / 3


@contextlib.contextmanager
def compiling(*, quickly: bool) -> Iterator[None]:
    """Compile fast, or with all optimisations: the reference's were on, and others round in other places."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", quickly)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def all_optimizations() -> Iterator[None]:
    with compiling(quickly=False):
        yield


def load_tree(path: pathlib.Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return traverse_util.unflatten_dict(dict(arrays), sep="/")


class StartParameters:
    """A weight loader for the reference's start parameters."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def load(self, params: dict[str, Any]) -> dict[str, Any]:
        return load_tree(self.path)


@pytest.fixture(scope="module")
def folder(golden: Callable[[str], pathlib.Path]) -> pathlib.Path:
    return golden("checkpoint_train")


@pytest.fixture(scope="module")
def config(folder: pathlib.Path) -> _config.TrainConfig:
    meta = json.loads((folder / "meta.json").read_text())
    variants, vision = meta["variants"], dict(meta["siglip"])
    model = pi0_config.Pi0Config(
        action_dim=16,
        action_horizon=6,
        max_token_len=12,
        dtype="float32",
        paligemma_variant=gemma.Config(**variants["t_pg"]),
        action_expert_variant=gemma.Config(**variants["t_ex"]),
        vision_variant=siglip.Config(**vision | {"patch_size": tuple(vision["patch_size"])}),
        vocab_size=meta["vocab"],
    )
    return _config.TrainConfig(
        name="golden",
        exp_name="golden",
        model=model,
        weight_loader=StartParameters(folder / "start_params.npz"),
        lr_schedule=optimizer.CosineDecaySchedule(warmup_steps=2, peak_lr=1e-3, decay_steps=10, decay_lr=1e-4),
        seed=meta["train_config"]["seed"],
        batch_size=2,
        ema_decay=0.99,
    )


@pytest.fixture(scope="module")
def batch(folder: pathlib.Path) -> train_step.Batch:
    data = jax.tree.map(jax.numpy.asarray, load_tree(folder / "batch.npz"))
    actions = data.pop("actions")
    return _model.Observation.from_dict(data), actions


class Steps(NamedTuple):
    """The state after each of three steps, the numbers of each, and the compiled step."""

    states: list[utils.TrainState]
    infos: list[dict[str, float]]
    step: Callable[[utils.TrainState, train_step.Batch], tuple[utils.TrainState, dict[str, jax.Array]]]


@pytest.fixture(scope="module")
def steps(config: _config.TrainConfig, batch: train_step.Batch) -> Steps:
    train_rng, init_rng = jax.random.split(jax.random.key(config.seed))
    state, _ = train_state.init_train_state(config, init_rng, sharding.make_mesh(1), resume=False)
    compiled = jax.jit(functools.partial(train_step.train_step, config), compiler_options=AS_THE_REFERENCE)
    step = functools.partial(compiled, train_rng)
    states, infos = [], []
    for _ in range(3):
        state, info = step(state, batch)
        states.append(state)
        infos.append({name: float(value) for name, value in info.items()})
    return Steps(states, infos, step)


def test_losses_and_norms_are_the_reference_s(folder: pathlib.Path, steps: Steps) -> None:
    expected = json.loads((folder / "meta.json").read_text())["infos_per_step"]
    for ours, reference in zip(steps.infos, expected, strict=True):
        assert {name: ours[name] for name in reference} == pytest.approx(reference, rel=TOLERANCE)


def test_averaged_parameters_are_the_reference_s(folder: pathlib.Path, steps: Steps) -> None:
    with np.load(folder / "restored_params.npz") as expected:
        ours = traverse_util.flatten_dict(steps.states[-1].ema_params.to_pure_dict(), sep="/")
        assert set(ours) == set(expected.files)
        for path, array in expected.items():
            assert_close(ours[path], array, path)


def test_parameters_are_the_reference_s(folder: pathlib.Path, steps: Steps) -> None:
    sums = json.loads((folder / "meta.json").read_text())["checksums_[shape,dtype,sum,l2]"]
    ours = traverse_util.flatten_dict(steps.states[-1].params.to_pure_dict(), sep="/")
    for path, (shape, dtype, _, norm) in sums["params"].items():
        array = np.asarray(ours[path])
        assert (list(array.shape), array.dtype.name) == (shape, dtype)
        noise = TOLERANCE if path.endswith("/key/bias") else None  # see _has_no_gradient
        assert np.linalg.norm(array) == pytest.approx(norm, rel=TOLERANCE, abs=noise), path


@pytest.fixture(scope="module")
def restored(
    folder: pathlib.Path, steps: Steps, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[utils.TrainState]:
    """The reference's checkpoint of its third step, read as a run of ours resumes from it."""
    run = tmp_path_factory.mktemp("run")
    (run / "3").symlink_to(folder / "ckpt" / "3", target_is_directory=True)
    manager, resuming = checkpoints.initialize_checkpoint_dir(run, keep_period=None, overwrite=False, resume=True)
    assert resuming
    yield checkpoints.restore_state(manager, steps.states[-1], data_loader=None)
    manager.close()


def assert_close(ours: Any, reference: Any, name: str, allowed: Any = TOLERANCE) -> None:
    """Within 1e-4; moments of the optimizer, which have any scale, within 1e-4 of their largest value."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    scale = np.abs(reference).max() if "opt_state" in name and not _has_no_gradient(name) else 1.0
    np.testing.assert_array_less(np.abs(ours - reference), allowed * max(scale, 1e-12), err_msg=name)


def _has_no_gradient(name: str) -> bool:
    """A key's bias adds the same to all logits of a query: its gradient is rounding noise around 0."""
    return "['key']['bias']" in name


def test_the_whole_state_is_the_reference_s(restored: utils.TrainState, steps: Steps) -> None:
    ours, reference = (jax.tree_util.tree_leaves_with_path(state) for state in (steps.states[-1], restored))
    assert len(ours) == len(reference) > 200
    assert sum(np.size(expected) for _, expected in reference) > 400_000
    first_moments = jax.tree_util.tree_leaves_with_path(steps.states[0].opt_state[1][0].mu)
    gradients = {".params" + jax.tree_util.keystr(path): np.asarray(moment) for path, moment in first_moments}
    for (path, array), (_, expected) in zip(ours, reference, strict=True):
        name = jax.tree_util.keystr(path)
        assert_close(array, expected, name, _allowed(name, gradients[name]) if name in gradients else TOLERANCE)


def _allowed(name: str, gradient: np.ndarray) -> np.ndarray:
    """How far the entries of a parameter may be off: some sixty of all may be further than 1e-4.

    Which of them are depends on the machine. On two cores of AMD's EPYC none is.
    """
    size = np.abs(gradient)
    is_noise = (size > 0) & (size < NOISE * np.sqrt(np.mean(np.square(gradient))))
    return np.where(is_noise | _has_no_gradient(name), FIRST_RATE, TOLERANCE)


def test_training_goes_on_from_the_reference_s_checkpoint(
    restored: utils.TrainState, steps: Steps, batch: train_step.Batch
) -> None:
    _, from_ours = steps.step(steps.states[-1], batch)
    _, from_reference = steps.step(restored, batch)
    assert int(restored.step) == 3
    for name in from_ours:
        assert float(from_reference[name]) == pytest.approx(float(from_ours[name]), rel=TOLERANCE)


def test_a_run_is_resumed_from_the_reference_s_folder(
    folder: pathlib.Path, config: _config.TrainConfig, restored: utils.TrainState, tmp_path: pathlib.Path
) -> None:
    """As `openpi train --resume` does, which saves a step of its own beside it."""
    config = dataclasses.replace(
        config, checkpoint_base_dir=str(tmp_path), resume=True, wandb_enabled=False, num_train_steps=5, num_workers=0
    )
    shutil.copytree(folder / "ckpt", config.checkpoint_dir)
    numbers: list[dict[str, float]] = []
    with compiling(quickly=True):
        state = train_loop.train(config, on_step=lambda step, info: numbers.append({"step": step, **info}))
    assert [number["step"] for number in numbers] == [3, 4]
    assert float(numbers[0]["param_norm"]) == pytest.approx(_norm_of_kernels(restored), rel=1e-2)
    assert int(state.opt_state[1][0].count) == 5
    assert (config.checkpoint_dir / "4" / "params").is_dir()


def _norm_of_kernels(state: utils.TrainState) -> float:
    return float(optax.global_norm(train_step.kernels(state.params)))


def test_our_checkpoint_of_it_is_read_back(config: _config.TrainConfig, steps: Steps, tmp_path: pathlib.Path) -> None:
    state = steps.states[-1]
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", {"params": state.ema_params})
    model = config.model.load(_model.restore_params(tmp_path / "params"))
    ours = traverse_util.flatten_dict(nnx.state(model).to_pure_dict(), sep="/")
    for path, array in traverse_util.flatten_dict(state.ema_params.to_pure_dict(), sep="/").items():
        np.testing.assert_array_equal(ours[path], array)
