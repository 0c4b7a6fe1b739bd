"""The two commands that need PyTorch, on the bundled small model."""

import dataclasses
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from openpi import transforms
from openpi.cli import compare, convert_jax_to_torch
from openpi.policies import policy_config
from openpi.training import config as _config

pytest.importorskip("torch", reason="PyTorch is not installed")

CONFIG = "pi0_aloha_sim_small"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Random weights, in the published layout."""
    folder = tmp_path_factory.mktemp("jax")
    params = nnx.state(_config.get_config(CONFIG).model.create(jax.random.key(1))).to_pure_dict()
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", {"params": params})
    (folder / "assets" / "lab").mkdir(parents=True)
    (folder / "assets" / "lab" / "norm_stats.json").write_text("{}")
    return folder


@pytest.mark.parametrize("no_language", [False, True])
def test_both_models_act_the_same(
    checkpoint: pathlib.Path, no_language: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    args = compare.Args(CONFIG, checkpoint=str(checkpoint), num_tests=2, no_language=no_language)
    assert compare.main(args) == 0
    assert "Largest difference in 2 action chunks" in capsys.readouterr().out
    assert compare.main(dataclasses.replace(args, num_tests=1, tolerance=0.0)) == 1


def test_converted_checkpoint_serves(checkpoint: pathlib.Path, tmp_path: pathlib.Path) -> None:
    args = convert_jax_to_torch.Args(str(checkpoint), tmp_path / "torch", precision="float32")
    assert convert_jax_to_torch.main(args) == 0
    assert (tmp_path / "torch" / "assets" / "lab" / "norm_stats.json").is_file()
    with pytest.raises(FileExistsError, match="there already"):
        convert_jax_to_torch.main(args)
    config = _config.get_config(CONFIG)
    one = transforms.NormStats(mean=np.zeros(14), std=np.ones(14), q01=-np.ones(14), q99=np.ones(14))
    stats = {"state": one, "actions": one}
    noise = np.random.default_rng(0).standard_normal((50, 14)).astype(np.float32)
    seen = {"state": np.zeros(14), "images": {"cam_high": np.zeros((3, 224, 224), np.uint8)}, "prompt": "push"}
    actions = [
        policy_config.create_trained_policy(config, folder, norm_stats=stats).infer(dict(seen), noise=noise)["actions"]
        for folder in (checkpoint, tmp_path / "torch")
    ]
    np.testing.assert_allclose(*actions, atol=0.05)  # both compute in bfloat16
