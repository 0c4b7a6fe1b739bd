"""Compare the PyTorch model with the JAX model: the same weights, observations and noise into both."""

import dataclasses
import logging
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

if TYPE_CHECKING:
    from openpi.models import model as _model

# What the two may differ by in float32: their sums are taken in another order.
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Args:
    """`openpi compare [CONFIG]`: needs torch. Exit status 1 if the actions differ by more than the tolerance.

    Attributes:
        config: name of a training config; its pi0 or pi0.5 model is compared, computing in float32.
        checkpoint: folder or URL of a JAX checkpoint; by default the weights are random.
        num_tests: random observations to try.
        device: of the PyTorch model.
        tolerance: largest absolute difference of an action.
        no_language: with the prompt masked.
        verbose: a line for each observation.
    """

    config: Annotated[str, tyro.conf.Positional] = "pi0_aloha_sim_small"
    checkpoint: str | None = None
    num_tests: int = 5
    device: str = "cpu"
    tolerance: float = _TOLERANCE
    no_language: bool = False
    verbose: bool = False


def main(args: Args) -> int:
    """Compare, and print the largest difference."""
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(message)s", force=True)
    from openpi.models_pytorch import require_torch
    from openpi.training import config as _config

    require_torch()
    config = dataclasses.replace(_config.get_config(args.config).model, dtype="float32")  # type: ignore[call-arg]
    models = _models(config, args)
    observations = (_inputs(config, seed, args.no_language) for seed in range(args.num_tests))
    worst = max(_difference(*models, *inputs, args.device) for inputs in observations)
    print(f"Largest difference in {args.num_tests} action chunks: {worst:.1e}; allowed: {args.tolerance:.1e}.")
    return 0 if worst <= args.tolerance else 1


def _models(config: "_model.BaseModelConfig", args: Args) -> tuple[Any, Any]:
    """`sample_actions` of the JAX model, compiled, and of the PyTorch model with its weights."""
    import jax
    import jax.numpy as jnp
    import torch
    from flax import nnx

    from openpi.models import model as _model
    from openpi.models_pytorch import pi0_pytorch, weights
    from openpi.shared import download, nnx_utils

    if args.checkpoint is None:
        params = nnx.state(config.create(jax.random.key(0))).to_pure_dict()
    else:
        folder = download.maybe_download(args.checkpoint) / "params"
        params = _model.restore_params(folder, restore_type=np.ndarray, dtype=jnp.float32)
    state = weights.state_dict_from_jax(jax.tree.map(np.asarray, params))
    theirs = pi0_pytorch.PI0Pytorch(config)  # type: ignore[arg-type]
    weights.load_state_dict(theirs, {name: torch.from_numpy(array.copy()) for name, array in state.items()})
    ours = config.load(params)
    ours.eval()
    return nnx_utils.module_jit(ours.sample_actions), theirs.float().eval().to(args.device).sample_actions


def _inputs(config: "_model.BaseModelConfig", seed: int, no_language: bool) -> "tuple[_model.Observation, np.ndarray]":
    """A random observation, and noise."""
    import jax

    rng = np.random.default_rng(seed)

    def fill(spec: jax.ShapeDtypeStruct) -> np.ndarray:
        if np.issubdtype(spec.dtype, np.floating):
            return rng.uniform(-1, 1, spec.shape).astype(np.float32)
        return np.ones(spec.shape, bool) if spec.dtype == bool else rng.integers(0, 200, spec.shape, np.int32)

    observation, actions = config.inputs_spec()
    seen = jax.tree.map(fill, observation)
    if no_language:
        seen = dataclasses.replace(seen, tokenized_prompt_mask=np.zeros_like(seen.tokenized_prompt_mask))
    return seen, rng.standard_normal(actions.shape).astype(np.float32)


def _difference(ours: Any, theirs: Any, observation: "_model.Observation", noise: np.ndarray, device: str) -> float:
    """The largest between the actions of the two."""
    import jax
    import torch

    expected = ours(jax.random.key(0), jax.tree.map(jax.numpy.asarray, observation), noise=jax.numpy.asarray(noise))
    actions = theirs(device, jax.tree.map(torch.from_numpy, observation), noise=torch.from_numpy(noise))
    difference = float(np.abs(np.asarray(expected) - actions.cpu().numpy()).max())
    logging.info("Difference: %.1e", difference)
    return difference
