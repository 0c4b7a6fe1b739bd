import json

import pytest

from openpi.cli import bench_server


def test_measures_our_server(tmp_path, capsys):
    path = tmp_path / "figures.json"
    short = {"requests": 20, "rounds": 1, "starts": 1}
    args = bench_server.Args(clients=(1, 2), policies=("instant",), **short, published=False, json=path)
    assert bench_server.main(args) == 0
    rows = json.loads(path.read_text())
    assert [(row["server"], row["clients"], row["observation"], row["client"]) for row in rows] == [
        ("ours", 1, "3x224", "async"),
        ("ours", 2, "3x224", "async"),
        ("ours", 1, "3x224", "own"),
        ("ours", 1, "640x480", "async"),
    ]
    assert all(row["requests_per_s"] > 0 and row["p50_ms"] <= row["p99_ms"] for row in rows)
    assert capsys.readouterr().out.startswith("| server | policy |")


def test_unknown_policies_are_named():
    with pytest.raises(ValueError, match="no policy x"):
        bench_server.Args(policies=("x",))
