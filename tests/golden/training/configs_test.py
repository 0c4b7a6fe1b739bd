"""Every named config against what the reference's config of that name is and builds."""

import dataclasses
import enum
import json
import pathlib
import re
from typing import Any

import pytest
import tyro
from flax import nnx

from openpi import transforms
from openpi.models import tokenizer
from openpi.training import config as _config

NAMES = list(json.loads((pathlib.Path(__file__).parents[1] / "facts" / "configs.json").read_text())["configs"])

# What these built in the reference before its robot transforms lost an argument: the same as its other DROID configs.
ROBOARENA = [
    "paligemma_binning_droid",
    "paligemma_fast_droid",
    "paligemma_fast_specialist_droid",
    "paligemma_vq_droid",
    "paligemma_diffusion_droid",
]


@pytest.fixture(autouse=True)
def tokenizers_without_files(monkeypatch):
    """Tokenizers that remember their length and load nothing, and a cache with nothing in it."""
    for cls in (
        tokenizer.PaligemmaTokenizer,
        tokenizer.FASTTokenizer,
        tokenizer.BinningTokenizer,
        tokenizer.FSQTokenizer,
    ):
        monkeypatch.setattr(cls, "__init__", lambda self, max_len, **kwargs: self.__dict__.update(max_len=max_len))
    monkeypatch.setattr("openpi.shared.download.maybe_download", _nothing_there)


def _nothing_there(url: Any, **kwargs: Any) -> pathlib.Path:
    raise FileNotFoundError(url)


def facts_of(value: Any) -> Any:
    """A value in the form of the golden file."""
    if value is tyro.MISSING:
        return "MISSING (must be given)"
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, transforms.RepackTransform):
        return {"class": "RepackTransform", "structure": facts_of(value.structure)}
    if isinstance(value, type):
        return value.__name__
    if type(value).__module__ == tokenizer.__name__:
        return {"tokenizer": type(value).__name__, "max_len": value.max_len}
    if dataclasses.is_dataclass(value):
        fields = {field.name: facts_of(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {key: facts_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [facts_of(item) for item in value]
    return value


def freezes(value: Any, path: str) -> bool:
    """Whether a filter as the golden file writes it holds for a parameter."""
    if value == "Nothing":
        return False
    if "all_of" in value:
        return all(freezes(item, path) for item in value["all_of"])
    if "not" in value:
        return not freezes(value["not"], path)
    return re.fullmatch(value["path_regex_fullmatch"], path) is not None


def assert_equal(got: Any, want: Any, where: str) -> None:
    """Every field that the golden file tells; ours may have more."""
    if isinstance(want, dict) and isinstance(got, dict):
        missing = want.keys() - got.keys()
        assert not missing, f"{where}: missing {missing}"
        for key, item in want.items():
            assert_equal(got[key], item, f"{where}.{key}")
    elif isinstance(want, list) and isinstance(got, list):
        assert len(got) == len(want), f"{where}: {got} instead of {want}"
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    else:
        assert got == want, f"{where}: {got!r} instead of {want!r}"


@pytest.mark.parametrize("name", NAMES)
def test_fields(name, facts):
    want = dict(facts("configs")["configs"][name])
    config = _config.get_config(name)
    got = facts_of(config)
    assert got["name"] == name

    for built in ("data_config", "data_config_error"):
        want.pop(built, None)
    model_type = want["model"].pop("model_type")
    assert config.model.model_type.value == model_type
    del want["freeze_filter"]
    if want["exp_name"].startswith("<required"):
        assert config.exp_name is tyro.MISSING
        del want["exp_name"]
    assert_equal(got["data"], want.pop("data_factory"), "data")
    assert_equal(got, want, name)


@pytest.mark.parametrize("name", NAMES)
def test_freeze_filter(name, facts):
    want = facts("configs")["configs"][name]["freeze_filter"]
    combos = facts("freeze_filters")["combos"].values()
    paths = {path for combo in combos for group in ("frozen", "trainable") for path in combo[group]}
    frozen = nnx.filterlib.to_predicate(_config.get_config(name).freeze_filter)
    assert {path for path in paths if frozen(tuple(path.split("/")), None)} == {p for p in paths if freezes(want, p)}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ROBOARENA])
def test_built_data_config(name, facts, tmp_path):
    want = facts("configs")["configs"][name]["data_config"]
    config = _config.get_config(name)
    assert_equal(facts_of(config.data.create(tmp_path, config.model)), want, name)


@pytest.mark.parametrize("name", ROBOARENA)
def test_roboarena_configs_build(name, facts, tmp_path):
    assert "data_config_error" in facts("configs")["configs"][name]
    config = _config.get_config(name)
    got = facts_of(config.data.create(tmp_path, config.model))
    like = "pi0_droid" if name == "paligemma_diffusion_droid" else "pi0_fast_droid"
    want = facts("configs")["configs"][like]["data_config"]
    del want["model_transforms"]
    assert_equal(got, want, name)
    assert [step["class"] for step in got["model_transforms"]["inputs"]][:2] == ["InjectDefaultPrompt", "ResizeImages"]


def test_order_is_the_reference_s_but_for_ours(facts):
    assert set(facts("configs")["configs"]) < set(_config.config_names())
    ours = set(_config.config_names()) - set(facts("configs")["configs"])
    assert ours >= {"pi05_positronic_lowmem", "pi0_aloha_sim_small"}
