import json
import pathlib

import numpy as np
import pytest

from openpi.cli import verify
from openpi.golden import outputs
from openpi.golden.folder import GoldenFolder

SPEC = {
    "kind": "pi0",
    "pg": "expert",
    "ex": "expert",
    "variants": {
        "expert": {"width": 16, "depth": 1, "mlp_dim": 8, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8},
    },
    "siglip": {"width": 8, "depth": 1, "mlp_dim": 8, "num_heads": 2, "patch_size": [112, 112]},
    "vocab": 16,
    "action_dim": 3,
    "horizon": 4,
    "max_len": 5,
    "batch": 3,
    "seed": 7,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of our own outputs, batch 3."""
    import jax
    from flax import nnx, traverse_util

    from openpi.golden.folder import config_from_spec

    path, rng = tmp_path_factory.mktemp("golden") / "own", np.random.default_rng(0)
    path.mkdir()
    (path / "meta.json").write_text(json.dumps({"spec": SPEC}))
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(config_from_spec(SPEC, "float32").create, jax.random.key(0))))
    flat = traverse_util.flatten_dict(shapes, sep="/")
    np.savez(path / "params.npz", **{k: 0.2 * rng.normal(size=v.shape).astype(np.float32) for k, v in flat.items()})
    cameras = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
    np.savez(
        path / "inputs.npz",
        **{f"image/{name}": rng.integers(0, 256, (3, 224, 224, 3), np.uint8) for name in cameras},
        **{f"image_mask/{name}": np.ones(3, bool) for name in cameras},
        state=rng.normal(size=(3, 3)).astype(np.float32),
        tokenized_prompt=rng.integers(0, 16, (3, 5)).astype(np.int32),
        tokenized_prompt_mask=np.ones((3, 5), bool),
        actions=rng.normal(size=(3, 4, 3)).astype(np.float32),
        noise=rng.normal(size=(3, 4, 3)).astype(np.float32),
    )
    np.savez(path / "outputs_f32.npz", sample_10=np.zeros((3, 4, 3), np.float32))
    computed = outputs.compute(GoldenFolder(path), "f32")
    np.savez(path / "outputs_f32.npz", **{name: np.asarray(value) for name, value in computed.items()})
    return path


def test_exit_status_and_table(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(verify.Args(folder.parent)) == 0
    assert "All outputs are within their bounds." in capsys.readouterr().out
    with np.load(folder / "outputs_f32.npz") as file:
        golden = dict(file)
    golden["sample_10"] = golden["sample_10"] + np.float32(5e-5)
    np.savez(folder / "outputs_f32.npz", **golden)
    assert verify.main(verify.Args(folder)) == 1
    assert "1 outputs are past their bounds" in capsys.readouterr().out


def test_other_folders_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"meta.json, params.npz, inputs.npz"):
        verify.main(verify.Args(tmp_path))
