import dataclasses

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import nnx

from openpi import transforms
from openpi.shared import normalize
from openpi.training import config as _config
from openpi.training import facts


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("pi0_aloha", 3_238_048_528), ("pi05_libero", 3_353_433_872), ("pi0_fast_libero", 2_923_335_408)],
)
def test_parameter_counts(name, parameters):
    got = facts.config_facts(_config.get_config(name))["parameters"]
    assert got["all"] == got["trained"] == f"{parameters:,}"
    parts = ("vision", "language", "action expert", "projections")
    assert sum(int(got[part].replace(",", "")) for part in parts if part in got) == parameters


def test_lora_trains_few_parameters_in_little_memory():
    full, lora = (
        facts.config_facts(_config.get_config(name))["parameters"]
        for name in ("pi0_libero", "pi0_libero_low_mem_finetune")
    )
    assert int(lora["trained"].replace(",", "")) < int(lora["all"].replace(",", "")) / 5
    assert float(lora["memory to train"].split()[0]) < float(full["memory to train"].split()[0]) / 4


def test_small_config():
    got = facts.config_facts(_config.get_config("pi0_aloha_sim_small"))
    assert got["config"] == "pi0_aloha_sim_small"
    assert got["model"]["type"] == "pi0"
    assert got["inputs"]["state"] == "(14,) float32"
    assert got["inputs"]["actions"] == "(50, 14) float32"
    assert got["data"]["into the model"].startswith("RepackTransform, AlohaInputs, normalise, InjectDefaultPrompt")
    assert got["data"]["out of the model"] == "unnormalise, AlohaOutputs"


def test_data_that_cannot_be_built_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENPI_DATA_HOME", str(tmp_path))
    got = facts.config_facts(_config.get_config("pi0_libero"))["data"]
    assert "tokenizer" in got["cannot be built here"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A training run of the small ALOHA model with two steps and statistics."""
    folder = tmp_path_factory.mktemp("run")
    model = _config.get_config("pi0_aloha_sim_small").model
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(model.create, jax.random.key(0))))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder / "200" / "params", {"params": params})
    (folder / "100").mkdir()
    stats = normalize.NormStats(mean=np.zeros(3), std=np.ones(3), q01=-np.ones(3), q99=np.ones(3))
    normalize.save(folder / "200/assets/my/robot", {"state": stats})
    return folder


@pytest.mark.parametrize("part", ["", "200", "200/params"])
def test_checkpoint(run_dir, part):
    got = facts.checkpoint_facts(run_dir / part)
    assert got["parameters"]["all"] == "512,142"
    assert got["parameters"]["dtype"] == "float32"
    assert got["parameters"]["fit the configs"] == "pi0_aloha_sim_small"
    if part != "200/params":
        assert got["statistics"] == {
            "my/robot": {"state": "3 values, std 1 to 1, q01 from -1, q99 to 1"},
        }
    assert got.get("steps") == (None if part else "100, 200")


def test_pytorch_checkpoint(tmp_path):
    safetensors.numpy.save_file({"a": np.zeros((2, 3), np.float32)}, tmp_path / "model.safetensors")
    got = facts.checkpoint_facts(tmp_path)["parameters"]
    assert got["all"] == "6 in 1 tensors"
    assert got["dtype"] == "F32"


def test_folder_that_is_no_checkpoint(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"no checkpoint: .*, but notes\.txt"):
        facts.checkpoint_facts(tmp_path)


def test_statistics_without_quantiles(tmp_path):
    normalize.save(tmp_path / "me", {"state": normalize.NormStats(mean=np.zeros(2), std=np.array([1.0, 3.0]))})
    assert facts.statistics_facts(tmp_path) == {"me": {"state": "2 values, std 1 to 3"}}


def test_unnamed_data_set():
    data = _config.SimpleDataConfig(model_transforms=lambda _: transforms.Group())
    config = dataclasses.replace(_config.get_config("debug"), data=data)
    assert facts.config_facts(config)["data"]["data set"] == "none (serving only)"
