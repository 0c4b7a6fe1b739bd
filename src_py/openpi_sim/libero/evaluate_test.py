import dataclasses
import json
import pathlib
import sys

import pytest

from openpi_sim.libero import evaluate
from openpi_sim.libero.interpreter import VARIABLE, libero_python
from openpi_sim.libero.suites import CONTROL_HZ, REPLAN_STEPS, SETTLING_STEPS, SUITES, find_suite

# Answers every job: success on task 0, an error on task 1 trial 1; writes the command line it was given.
WORKER = """#!{python}
import json, pathlib, sys
pathlib.Path("{log}").write_text(json.dumps(sys.argv[1:]))
print('{{"ready": true}}', flush=True)
for line in sys.stdin:
    job = json.loads(line)
    end = {{"error": "lost"}} if job == {{"task": 1, "trial": 1}} else {{"success": job["task"] == 0, "steps": 50}}
    print(json.dumps(job | end), flush=True)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch) -> pathlib.Path:
    """Stands in for LIBERO's interpreter; the path of what it was called with."""
    script, log = tmp_path / "python", tmp_path / "arguments.json"
    script.write_text(WORKER.format(python=sys.executable, log=log))
    script.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(script))
    return log


def test_protocol_is_the_published_one():
    assert {name: (suite.tasks, suite.max_steps) for name, suite in SUITES.items()} == {
        "spatial": (10, 220),
        "object": (10, 280),
        "goal": (10, 300),
        "10": (10, 520),
        "90": (90, 400),
    }
    assert (SETTLING_STEPS, REPLAN_STEPS, CONTROL_HZ) == (10, 5, 20.0)
    assert (evaluate.Args().trials, evaluate.Args().seed) == (50, 7)
    with pytest.raises(ValueError, match="spatial, object, goal, 10, 90"):
        find_suite("kitchen")


def test_table_and_summary_of_a_run(worker, tmp_path, capsys):
    args = evaluate.Args(trials=2, tasks=(0, 1), workers=2, out=tmp_path / "out")
    assert evaluate.main(args) == 1  # an episode did not run
    summary = json.loads((tmp_path / "out/spatial_seed7_expert/summary.json").read_text())
    assert summary["tasks"]["0"] == {"episodes": 2, "successes": 2, "errors": 0, "mean_steps": 50.0}
    assert summary["tasks"]["1"] == {"episodes": 2, "successes": 0, "errors": 1, "mean_steps": 50.0}
    assert (summary["suite"], summary["max_steps"], summary["success_rate"]) == ("libero_spatial", 220, 0.5)
    said = capsys.readouterr()
    assert "50.0%" in said.out
    assert "task 1 trial 1: lost" in said.err


def test_results_of_another_policy_are_not_mixed_in(worker, tmp_path):
    args = evaluate.Args(trials=1, tasks=(0,), server="host:9", out=tmp_path)
    assert evaluate.main(args) == evaluate.main(args) == 0
    with pytest.raises(ValueError, match="results of policy 'host:9', and this is policy 'host:10'; choose"):
        evaluate.main(dataclasses.replace(args, server="host:10"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ["--server", "", "--no-render"]),
        ({"server": "host:9", "suite": "90"}, ["--server", "host:9", "--render"]),
        ({"render": True}, ["--server", "", "--render"]),
    ],
)
def test_workers_are_told_what_to_run(worker, tmp_path, change, expected):
    args = evaluate.Args(trials=1, tasks=(0,), out=tmp_path / "out", seed=3, **change)
    evaluate.main(args)
    arguments = json.loads(worker.read_text())
    assert arguments[:4] == ["-m", "openpi_sim.libero.worker", "--suite", args.suite]
    assert arguments[-3:] == expected
    assert arguments[arguments.index("--seed") + 1] == "3"


def test_workers_through_ros_start_a_stack_each_in_a_domain_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "100")
    args = evaluate.Args(through_ros=True, workers=3, suite="goal", stack=("policy:=remote", "port:=9000"))
    commands = [evaluate._worker_command(args, tmp_path, number) for number in range(args.workers)]
    options = [worker_options(command) for command in commands]
    assert [option["--domain"] for option in options] == ["101", "0", "1"]
    assert len({option["--start-stack"] for option in options}) == 3
    assert [command[-2:] for command in commands] == [["--stack=policy:=remote", "--stack=port:=9000"]] * 3
    assert "--namespace" not in options[0]


def test_one_worker_through_ros_takes_the_stack_that_is_running(tmp_path):
    command = evaluate._worker_command(evaluate.Args(through_ros=True, namespace="left"), tmp_path, 0)
    options = worker_options(command)
    assert options["--namespace"] == "left"
    assert "--start-stack" not in options


def worker_options(command: list[str]) -> dict[str, str]:
    at = command.index("openpi_ros.libero_worker") + 1
    words = [word for word in command[at:] if ":=" not in word]
    return dict(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "goal"}, "scripted expert knows"),
        ({"tasks": (10,)}, "tasks 0 to 9"),
        ({"server": "robot"}, "HOST:PORT"),
        ({"workers": 0}, "--workers is 0"),
        ({"through_ros": True, "server": "host:9"}, "leave --server out"),
        ({"through_ros": True, "workers": 2, "suite": "goal"}, "scripted expert knows"),
        ({"through_ros": True, "stack": ("policy:=expert",), "suite": "10"}, "scripted expert knows"),
        ({"through_ros": True, "workers": 2, "namespace": "left"}, "--namespace finds the stack"),
        ({"namespace": "left"}, "--namespace finds the stack"),
        ({"stack": ("policy:=remote",)}, "give both or neither"),
    ],
)
def test_bad_arguments_are_sentences(worker, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate.main(evaluate.Args(**change))


def test_without_libero_one_sentence_says_what_to_run(monkeypatch):
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    with pytest.raises(FileNotFoundError, match=r"no /nowhere/python. Run `make setup-libero`"):
        libero_python()
