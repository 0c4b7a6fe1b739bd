import io
import json

import pytest
from rich.console import Console

from openpi.cli import info


def test_lists_configs(capsys):
    assert info.main(info.Args()) == 0
    text = capsys.readouterr().out
    assert "pi05_libero" in text
    assert "LeRobotAlohaDataConfig" in text


def test_config_as_json(capsys):
    assert info.main(info.Args("pi0_aloha_sim_small", json=True)) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["all"] == "512,142"


def test_config_as_a_tree(capsys):
    assert info.main(info.Args("debug")) == 0
    text = capsys.readouterr().out
    assert text.startswith("config debug")
    assert "memory to serve" in text


def test_config_of_one_s_own(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "import dataclasses\n"
        "from openpi.training import config\n"
        "config.register_config(dataclasses.replace(config.get_config('debug'), name='info_test_mine'))\n"
    )
    assert info.main(info.Args(f"{tmp_path}/mine.py")) == 0
    assert "config info_test_mine" in capsys.readouterr().out


def test_neither_config_nor_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"neither a config nor a folder 'pi0_libreo'\. Did you mean 'pi0_libero'"):
        info.gather("pi0_libreo")
    with pytest.raises(ValueError, match="lists the configs"):
        info.gather(str(tmp_path / "nowhere"))


def test_brackets_are_no_markup():
    out = io.StringIO()
    info.show({"config": "x", "part": {"list": "[a] [bold]"}}, Console(file=out))
    assert "[a] [bold]" in out.getvalue()


def test_robot(capsys):
    assert info.main(info.Args("droid", json=True)) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["robot"] == "droid"
    assert facts["commands"]["arm panda_joint4"] == "-3.067 to -0.075 rad, at most 2.17 rad/s"
    assert facts["cameras"]["wrist"] == "wrist/image_raw (left_wrist)"
    assert facts["controllers"]["arm"].startswith("joint_trajectory (used)")


def test_a_wrong_robot_says_where(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text("name: x\nrate_hz: fast\n")
    with pytest.raises(ValueError, match=r"robot\.yaml, line 1: the file lacks the field 'executed_steps'"):
        info.gather(str(path))
