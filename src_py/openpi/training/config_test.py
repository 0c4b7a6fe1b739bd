import dataclasses
import importlib.metadata
import math
import pathlib
import subprocess
import sys

import cloudpickle
import pytest
import tyro

from openpi.models import pi0_config
from openpi.training import config as _config
from openpi.training import data_config

OWN = """
import dataclasses
from openpi.training import config

base = config.get_config("pi0_libero")
config.register_config(dataclasses.replace(base, name="{name}", batch_size=3))
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """A registry of the test's own, starting with the real one's content."""
    monkeypatch.setattr(_config, "_CONFIGS", dict(_config._CONFIGS))
    monkeypatch.setattr(_config, "_loaded", {})
    return _config._CONFIGS


def test_names_are_unique_and_found():
    names = _config.config_names()
    assert len(names) == len(set(names)) >= 33
    assert all(_config.get_config(name).name == name for name in names)


def test_typo_names_the_nearest():
    with pytest.raises(ValueError, match=r"no config 'pi0_aloha_simm'\. Did you mean 'pi0_aloha_sim'"):
        _config.get_config("pi0_aloha_simm")
    with pytest.raises(ValueError, match="There are debug, "):
        _config.get_config("zzzzzz")


def test_register():
    mine = dataclasses.replace(_config.get_config("debug"), name="mine")
    _config.register_config(mine)
    assert _config.get_config("mine") is mine
    with pytest.raises(ValueError, match="a config 'mine' already"):
        _config.register_config(mine)
    other = dataclasses.replace(mine, batch_size=7)
    _config.register_config(other, replace=True)
    assert _config.get_config("mine") is other


@pytest.mark.parametrize("ending", ["", ":mine"])
def test_config_in_a_file(tmp_path, ending):
    (tmp_path / "my_robot.py").write_text(OWN.format(name="mine"))
    for _ in range(2):  # run once only
        config = _config.get_config(f"{tmp_path}/my_robot.py{ending}")
        assert (config.name, config.batch_size) == ("mine", 3)
    assert _config.get_config("mine") is config


def test_file_with_several_configs(tmp_path):
    path = tmp_path / "my_robot.py"
    path.write_text(OWN.format(name="one") + OWN.format(name="two"))
    assert _config.get_config(f"{path}:two").name == "two"
    with pytest.raises(ValueError, match=r"registers 2 configs, so name one: .*\['one', 'two'\]"):
        _config.get_config(str(path))
    with pytest.raises(ValueError, match="registers no config 'three'"):
        _config.get_config(f"{path}:three")


def test_file_that_builds_on_anothers_has_its_own_configs_only(tmp_path):
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(OWN.format(name="mine"))
    second.write_text(OWN.format(name="smaller").replace("pi0_libero", str(first)) + "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        _config.get_config(str(second))
    second.write_text(second.read_text().replace("1 / 0\n", ""))
    assert _config.get_config(str(second)).name == "smaller"
    assert _config.get_config(str(first)).name == "mine"


OWN_TRANSFORM = """
import dataclasses

import numpy as np

from openpi import transforms
from openpi.training import config


@dataclasses.dataclass(frozen=True)
class Twice(transforms.DataTransformFn):
    def __call__(self, data):
        return {"state": 2 * np.asarray(data["state"])}


def pair(model):
    return transforms.Group(inputs=[Twice()])


data = config.SimpleDataConfig(repo_id="cups", data_transforms=pair)
config.register_config(config.TrainConfig(name="mine", data=data))
"""


def test_transforms_of_a_file_reach_a_process_that_has_not_loaded_it(tmp_path):
    (tmp_path / "my_robot.py").write_text(OWN_TRANSFORM)
    config = _config.get_config(f"{tmp_path}/my_robot.py")
    (transform,) = config.data.data_transforms(config.model).inputs
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer)({'state': [1, 2]})['state'])"
    done = subprocess.run([sys.executable, "-c", script], input=cloudpickle.dumps(transform), capture_output=True)
    assert done.stdout.split() == [b"[2", b"4]"], done.stderr


def test_broken_file_can_be_corrected(tmp_path):
    path = tmp_path / "my_robot.py"
    with pytest.raises(FileNotFoundError, match="no config file"):
        _config.get_config(str(path))
    path.write_text(OWN.format(name="mine") + "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        _config.get_config(str(path))
    path.write_text(OWN.format(name="mine"))
    assert _config.get_config(str(path)).name == "mine"


def test_entry_point(tmp_path, monkeypatch):
    (tmp_path / "my_openpi_robot.py").write_text(OWN.format(name="packaged"))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = importlib.metadata.EntryPoint("mine", "my_openpi_robot", _config.ENTRY_POINT_GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    assert _config.get_config("packaged").batch_size == 3
    assert "packaged" in _config.config_names()


def test_command_line_changes_fields():
    args = ["debug", "--exp-name", "x", "--batch-size", "4", "--model.action-horizon", "9", "--optimizer.b1", "0.5"]
    args += ["--model.paligemma-variant", "gemma_2b_lora"]
    config = _config.cli(args=[*args, "--no-overwrite", "--lr-schedule.peak-lr", "1"])
    assert (config.name, config.exp_name, config.batch_size, config.overwrite) == ("debug", "x", 4, False)
    assert config.model.paligemma_variant == "gemma_2b_lora"
    assert (config.model.action_horizon, config.optimizer.b1, config.lr_schedule.peak_lr) == (9, 0.5, 1.0)


@pytest.mark.parametrize("name", _config.config_names())
def test_command_line_takes_every_config(name):
    config = _config.get_config(name)
    given = ["--data.repo-id", "me"] if config.data.repo_id is tyro.MISSING else []
    got = _config.cli(args=[name, "--exp-name", "x", *given])
    assert dataclasses.replace(got, exp_name=config.exp_name, data=config.data) == config
    assert type(got.data) is type(config.data)


def test_command_line_changes_the_data(tmp_path):
    config = _config.cli(
        args=["pi0_aloha_sim_small", "--exp-name", "x", "--data.repo-id", str(tmp_path), "--data.assets.asset-id", "me"]
    )
    assert config.data.repo_id == str(tmp_path)
    assert config.data.assets.asset_id == "me"
    assert config.data.default_prompt == "Transfer cube"


def test_command_line_takes_metadata_as_json(capsys):
    args = ["debug", "--policy-metadata"]
    assert _config.cli(args=[*args, '{"reset_pose": [1]}']).policy_metadata == {"reset_pose": [1]}
    assert _config.cli(args=[*args, "null"]).policy_metadata is None
    for wrong in ("[1]", "{"):
        with pytest.raises(SystemExit):
            _config.cli(args=[*args, wrong])
    assert "policy-metadata" in capsys.readouterr().err


def test_command_line_needs_a_name(capsys):
    with pytest.raises(SystemExit):
        _config.cli(args=["pi0_aloha_sim"])
    assert "exp-name" in capsys.readouterr().err
    with pytest.raises(SystemExit) as status:
        _config.cli(args=["--help"])
    assert status.value.code == 0
    assert "pi05_libero" in capsys.readouterr().out


def test_train_config_folders(tmp_path):
    config = dataclasses.replace(
        _config.get_config("debug"), assets_base_dir=str(tmp_path / "a"), checkpoint_base_dir=str(tmp_path / "c")
    )
    assert config.assets_dirs == tmp_path / "a" / "debug"
    assert config.checkpoint_dir == tmp_path / "c" / "debug" / "debug"
    with pytest.raises(ValueError, match="no exp_name yet"):
        _ = _config.get_config("pi0_libero").checkpoint_dir
    with pytest.raises(ValueError, match="exclude each other"):
        dataclasses.replace(config, overwrite=True, resume=True)


def test_statistics_are_found_beside_the_config(tmp_path):
    stats = '{"norm_stats": {"state": {"mean": [0.0], "std": [1.0]}}}'
    folder = tmp_path / "trossen"
    folder.mkdir()
    (folder / "norm_stats.json").write_text(stats)
    data = _config.LeRobotAlohaDataConfig(
        assets=_config.AssetsConfig(asset_id="trossen"), tokenizer_path=data_config.SMALL_TOKENIZER
    )
    built = data.create(tmp_path, pi0_config.Pi0Config())
    assert built.norm_stats is not None
    assert built.norm_stats["state"].std.tolist() == [1.0]
    assert built.repo_id is None
    elsewhere = dataclasses.replace(data, assets=_config.AssetsConfig(str(tmp_path), "trossen"))
    assert elsewhere.create(pathlib.Path("/nowhere"), pi0_config.Pi0Config()).norm_stats is not None


def test_statistics_that_cannot_be_fetched_are_no_obstacle(monkeypatch, caplog):
    def offline(url):
        raise ImportError("gs:// needs a package that is not here")

    monkeypatch.setattr(data_config.download, "maybe_download", offline)
    config = _config.get_config("pi0_aloha_pen_uncap")
    data = dataclasses.replace(config.data, tokenizer_path=data_config.SMALL_TOKENIZER)
    assert data.create(config.assets_dirs, config.model).norm_stats is None
    assert "cannot be fetched: gs:// needs" in caplog.text


def test_malformed_statistics_are_an_error(tmp_path):
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "norm_stats.json").write_text("{")
    data = _config.SimpleDataConfig(
        assets=_config.AssetsConfig(str(tmp_path), "me"), tokenizer_path=data_config.SMALL_TOKENIZER
    )
    with pytest.raises(ValueError, match=r"norm_stats\.json"):
        data.create(tmp_path, pi0_config.Pi0Config())
    (tmp_path / "me" / "norm_stats.json").unlink()
    assert data.create(tmp_path, pi0_config.Pi0Config()).norm_stats is None


def test_simple_data_config_takes_plain_callables():
    from openpi import transforms

    group = transforms.Group(inputs=[transforms.InjectDefaultPrompt("hi")])
    data = _config.SimpleDataConfig(data_transforms=lambda _: group, model_transforms=lambda _: transforms.Group())
    assert data.create(pathlib.Path("/nowhere"), pi0_config.Pi0Config()).data_transforms is group


def test_unknown_model_has_no_default_transforms():
    with pytest.raises(ValueError, match="no default transforms for object"):
        _config.ModelTransformFactory()(object())


def test_rlds_needs_its_folder():
    with pytest.raises(ValueError, match="rlds_data_dir is not set"):
        _config.RLDSDroidDataConfig().create(pathlib.Path("/nowhere"), pi0_config.Pi0Config())


def test_small_model_is_small():
    from openpi.training import fitting

    shapes = fitting.model_shapes(_config.get_config("pi0_aloha_sim_small").model)
    assert sum(math.prod(shape) for shape in shapes.values()) < 1_000_000


@pytest.mark.parametrize("name", ["pi0_libero", "pi0_droid", "pi05_positronic_lowmem", "pi0_aloha"])
def test_tokenizer_of_one_s_own(name):
    config = _config.get_config(name)
    data = dataclasses.replace(config.data, tokenizer_path=data_config.SMALL_TOKENIZER)
    built = data.create(config.assets_dirs, config.model)
    assert any(type(step).__name__ == "TokenizePrompt" for step in built.model_transforms.inputs)
