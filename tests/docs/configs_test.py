"""docs/configs.md says what is: its names exist, its example runs."""

import pathlib
import re

import pytest

from openpi.training import config as _config
from openpi.training import facts

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "configs.md").read_text()


def test_every_config_is_in_the_table():
    table = PAGE.split("## The named configs")[1].split("## Change a field")[0]
    named = set(re.findall(r"`(\w+)`", table))
    shipped = {config.name for config in _config.configs.ALL}
    assert named == shipped


@pytest.fixture
def my_robot(tmp_path, monkeypatch):
    monkeypatch.setattr(_config, "_CONFIGS", dict(_config._CONFIGS))
    monkeypatch.setattr(_config, "_loaded", {})
    path = tmp_path / "my_robot.py"
    path.write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1))
    return path


@pytest.mark.parametrize("ending", ["", ":my_aloha_lora"])
def test_example(my_robot, ending):
    config = _config.get_config(f"{my_robot}{ending}")
    assert config.name == "my_aloha_lora"
    parameters = facts.config_facts(config)["parameters"]
    for line in ("trained", "all", "memory to train"):
        value = parameters[line].split(" (")[0]
        assert f"{line} {value}" in PAGE
