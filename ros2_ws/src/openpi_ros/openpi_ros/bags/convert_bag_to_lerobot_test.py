from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openpi.training.datasets.reader import LeRobotDataset
from openpi_ros.bags import convert_bag_to_lerobot as convert


def test_a_bag_becomes_a_data_set(bag: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = convert.Args(bags=(bag.write(),), output=tmp_path / "set", robot="droid", fps=10, task="lift the cube")
    assert convert.main(args) == 0
    assert "1 episodes, 20 frames" in capsys.readouterr().out
    frame = LeRobotDataset(tmp_path / "set")[3]
    assert np.asarray(frame["observation.state"]) == pytest.approx([*[0.03] * 7, 0.75])
    assert np.asarray(frame["action"]) == pytest.approx([*[0.05] * 7, 0.75])
    assert "observation.images.wrist" in frame


def test_no_bag_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no bag"):
        convert.main(convert.Args(bags=(tmp_path / "none",), output=tmp_path / "set"))
