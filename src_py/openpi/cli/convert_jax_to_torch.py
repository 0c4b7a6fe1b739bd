"""Convert a JAX checkpoint to PyTorch: params/ to model.safetensors, with its statistics."""

import dataclasses
import pathlib
import shutil
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass(frozen=True)
class Args:
    """`openpi convert jax-to-torch CHECKPOINT OUTPUT`: needs torch; `openpi serve` takes the result.

    Attributes:
        checkpoint: folder or URL of a JAX checkpoint (the one with params/).
        output: folder to make.
        precision: of the numbers in the file; the model rounds to bfloat16 when it is loaded to serve.
    """

    checkpoint: Annotated[str, tyro.conf.Positional]
    output: Annotated[pathlib.Path, tyro.conf.Positional]
    precision: Literal["float32", "bfloat16"] = "bfloat16"


def main(args: Args) -> int:
    """Convert, and copy assets/.

    Raises:
        FileExistsError: there is a model in the output folder already.
        ValueError: the checkpoint has parameters that the PyTorch model has no place for (LoRA, pi0-FAST).
    """
    from rich.console import Console

    from openpi.models_pytorch import require_torch
    from openpi.shared import download

    require_torch()
    target = args.output / "model.safetensors"
    if target.exists():
        raise FileExistsError(f"{target} is there already; give another folder.")
    source = download.maybe_download(args.checkpoint)
    args.output.mkdir(parents=True, exist_ok=True)
    with Console(stderr=True).status("Converting"):
        count = _write(source / "params", target, args.precision)
    if (source / "assets").is_dir():
        shutil.copytree(source / "assets", args.output / "assets", dirs_exist_ok=True)
    print(f"Wrote {count} tensors to {target}")
    return 0


def _write(params_dir: pathlib.Path, target: pathlib.Path, precision: str) -> int:
    """The number of tensors written."""
    import jax.numpy as jnp
    import numpy as np
    import safetensors.torch
    import torch

    from openpi.models import model as _model
    from openpi.models_pytorch import weights

    params = _model.restore_params(params_dir, restore_type=np.ndarray, dtype=jnp.float32)
    state = weights.state_dict_from_jax(params)
    dtype = getattr(torch, precision)
    tensors = {name: torch.from_numpy(array).to(dtype) for name, array in state.items()}
    safetensors.torch.save_file(tensors, target)
    return len(tensors)
