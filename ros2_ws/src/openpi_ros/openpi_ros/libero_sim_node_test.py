import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")

from openpi_ros import libero_sim_node
from openpi_sim.libero.interpreter import VARIABLE


def test_without_libero_it_ends_with_one_sentence(monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    assert libero_sim_node.main([]) == 1
    said = capsys.readouterr().err
    assert said.startswith("libero_sim_node: LIBERO is not installed")
    assert "make setup-libero" in said
    assert said.count("\n") == 1


def test_it_goes_on_under_the_python_that_has_libero(monkeypatch, tmp_path):
    python, calls = tmp_path / "python", []
    python.touch()
    monkeypatch.setenv(VARIABLE, str(python))
    monkeypatch.setattr(libero_sim_node.os, "execv", lambda *words: calls.append(words))
    libero_sim_node.main(["--ros-args", "-p", "task:=3"])
    words = [str(python), "-m", "openpi_ros.libero_sim_node", "--ros-args", "-p", "task:=3"]
    assert calls == [(str(python), words)]
