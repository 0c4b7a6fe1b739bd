import json
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from openpi.models import model as _model
from openpi.shared import normalize
from openpi.training import checkpoints, utils
from openpi.training.data_config import DataConfig


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.second = nnx.Linear(4, 2, rngs=rngs)


STATS = {"state": normalize.NormStats(mean=np.zeros(3), std=np.ones(3), q01=-np.ones(3), q99=np.ones(3))}
LOADER = types.SimpleNamespace(data_config=lambda: DataConfig(asset_id="my/robot", norm_stats=STATS))


def make_state(seed=0, *, ema=True, width_of=Net):
    graph, params = nnx.split(width_of(nnx.Rngs(seed)))
    tx = optax.adamw(1e-3)
    return utils.TrainState(
        step=jnp.int32(seed),
        params=params,
        model_def=graph,
        opt_state=jax.tree.map(lambda x: x + seed, tx.init(params)),
        tx=tx,
        ema_decay=0.99 if ema else None,
        ema_params=jax.tree.map(lambda x: x + 1, params) if ema else None,
    )


def open_dir(path, **kwargs):
    options = {"keep_period": None, "overwrite": False, "resume": False, **kwargs}
    return checkpoints.initialize_checkpoint_dir(path, **options)


def save(path, state, step=1):
    manager, _ = open_dir(path, resume=True)
    checkpoints.save_state(manager, state, LOADER, step)
    manager.wait_until_finished()
    manager.close()


def assert_same(a, b):
    a, b = (jax.tree_util.tree_leaves_with_path(tree) for tree in (a, b))
    assert [path for path, _ in a] == [path for path, _ in b]
    for (_, left), (_, right) in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("ema", [True, False])
def test_state_comes_back(tmp_path, ema):
    state = make_state(3, ema=ema)
    save(tmp_path / "run", state, step=3)
    manager, resuming = open_dir(tmp_path / "run", resume=True)
    assert resuming
    restored = checkpoints.restore_state(manager, make_state(0, ema=ema), LOADER)
    assert_same(restored, state)
    manager.close()


@pytest.mark.parametrize("ema", [True, False])
def test_layout_is_the_published_one(tmp_path, ema):
    state = make_state(ema=ema)
    save(tmp_path / "run", state, step=7)
    step = tmp_path / "run" / "7"
    assert {p.name for p in step.iterdir()} >= {"params", "train_state", "assets"}
    assert normalize.load(step / "assets" / "my/robot")["state"].std.tolist() == [1, 1, 1]
    metadata = json.loads((step / "params" / "_METADATA").read_text())
    assert "('params', 'first', 'kernel', 'value')" in metadata["tree_metadata"]
    # What gets deployed: the moving average where there is one.
    deployed = _model.restore_params(step / "params", restore_type=np.ndarray)
    want = nnx.to_pure_dict(state.ema_params if ema else state.params)
    jax.tree.map(np.testing.assert_array_equal, deployed, want)


def test_existing_folder(tmp_path):
    save(tmp_path / "run", make_state())
    with pytest.raises(FileExistsError, match="--resume"):
        open_dir(tmp_path / "run")
    manager, resuming = open_dir(tmp_path / "run", overwrite=True)
    assert not resuming
    assert list(manager.all_steps()) == []
    manager.close()


def test_nothing_to_resume(tmp_path):
    manager, resuming = open_dir(tmp_path / "run", resume=True)
    assert not resuming
    with pytest.raises(FileNotFoundError, match="no step 5"):
        checkpoints.restore_state(manager, make_state(), LOADER, step=5)
    manager.close()


def test_which_steps_stay(tmp_path):
    manager, _ = open_dir(tmp_path / "run", keep_period=4, keep_last=2)
    for step in range(1, 8):
        checkpoints.save_state(manager, make_state(step), LOADER, step)
    manager.wait_until_finished()
    assert sorted(manager.all_steps()) == [4, 6, 7]
    manager.close()


def test_saving_goes_on_while_training_does(tmp_path, monkeypatch):
    training_went_on, write = threading.Event(), normalize.save

    def write_late(*args):
        assert training_went_on.wait(20)
        write(*args)

    monkeypatch.setattr(normalize, "save", write_late)
    manager, _ = open_dir(tmp_path / "run")
    checkpoints.save_state(manager, make_state(), LOADER, 1)
    assert not (tmp_path / "run/1").exists()
    training_went_on.set()
    manager.wait_until_finished()
    assert (tmp_path / "run/1/assets/my/robot/norm_stats.json").is_file()
    manager.close()


def test_step_of_another_model(tmp_path):
    save(tmp_path / "run", make_state(), step=1)

    class Wider(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(3, 4, rngs=rngs)
            self.third = nnx.Linear(4, 2, rngs=rngs)

    manager, _ = open_dir(tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match=r"Step 1 .* cannot be restored"):
        checkpoints.restore_state(manager, make_state(width_of=Wider), LOADER)
    manager.close()


def test_damaged_step(tmp_path):
    save(tmp_path / "run", make_state(), step=1)
    for file in (tmp_path / "run/1/train_state").rglob("*"):
        if file.is_file() and "METADATA" not in file.name:
            file.write_bytes(b"")
    manager, _ = open_dir(tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match=r"Step 1 .* damaged"):
        checkpoints.restore_state(manager, make_state(), LOADER)
    manager.close()


def test_data_without_statistics(tmp_path):
    loader = types.SimpleNamespace(data_config=lambda: DataConfig(asset_id="my/robot"))
    manager, _ = open_dir(tmp_path / "run")
    checkpoints.save_state(manager, make_state(), loader, 1)
    manager.wait_until_finished()
    manager.close()
    assert not list((tmp_path / "run/1").rglob("norm_stats.json"))


def test_count_of_skipped_samples_is_kept(tmp_path):
    loader = types.SimpleNamespace(data_config=LOADER.data_config, skipped_before=lambda batch: 10 * batch)
    manager, _ = open_dir(tmp_path / "run")
    checkpoints.save_state(manager, make_state(), loader, 3)
    manager.wait_until_finished()
    manager.close()
    manager, _ = open_dir(tmp_path / "run", resume=True)
    assert checkpoints.skipped_samples(manager) == 40
    manager.close()
    save(tmp_path / "none", make_state())
    manager, _ = open_dir(tmp_path / "none", resume=True)
    assert checkpoints.skipped_samples(manager) == 0
    manager.close()


def test_callback_handler(tmp_path):
    def broken(directory):
        raise OSError("disk full")

    handler = checkpoints.CallbackHandler()
    with pytest.raises(OSError, match="disk full"):
        handler.save(tmp_path, checkpoints.CallbackSave(broken))
    with pytest.raises(ValueError, match="load_norm_stats"):
        handler.restore(tmp_path)


def test_norm_stats_of_an_unknown_asset(tmp_path):
    normalize.save(tmp_path / "trossen", STATS)
    normalize.save(tmp_path / "my/robot", STATS)
    assert checkpoints.load_norm_stats(tmp_path, "my/robot")["state"].mean.shape == (3,)
    with pytest.raises(FileNotFoundError, match=r"'droid' in .*; it has statistics for my/robot, trossen"):
        checkpoints.load_norm_stats(tmp_path, "droid")
    with pytest.raises(FileNotFoundError, match="no statistics at all"):
        checkpoints.load_norm_stats(tmp_path / "nowhere", "droid")
