import json
import pathlib

import pytest

from openpi.cli import bench_model


def test_figures_of_a_tiny_model(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from openpi.models import gemma, pi0_config, siglip

    expert = gemma.Config(width=16, depth=1, mlp_dim=16, num_heads=2, num_kv_heads=1, head_dim=8)
    config = pi0_config.Pi0Config(
        action_dim=3,
        action_horizon=4,
        max_token_len=5,
        paligemma_variant=expert,
        action_expert_variant=expert,
        vision_variant=siglip.Config(width=8, depth=1, mlp_dim=8, num_heads=2),
        vocab_size=32,
        image_resolution=(14, 14),
    )
    monkeypatch.setattr(bench_model, "_config", lambda size: config)
    args = bench_model.Args(sizes=("tiny",), calls=2, num_steps=2, rtc=True, json=tmp_path / "figures.json")
    assert bench_model.main(args) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert [row["model"] for row in rows] == ["tiny", "tiny rtc vjp", "tiny rtc residual"]
    assert all(0 < row["call_s"] < row["first_call_s"] for row in rows)
    assert rows[0]["parameter_gb"] == pytest.approx(2 * rows[0]["parameters"] / 1e9)
    assert "tiny" in capsys.readouterr().out


def test_unknown_size_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="tiny, pi0, pi05"):
        bench_model.Args(sizes=("huge",))
