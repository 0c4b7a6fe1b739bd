"""Which parameters LoRA fine-tuning freezes, leaf by leaf on the full-size models, without allocating them."""

import json
import pathlib

import jax
import pytest
from flax import nnx

from openpi.models import pi0_config, pi0_fast

FACTS = pathlib.Path(__file__).parents[1] / "facts" / "freeze_filters.json"
COMBOS = list(json.loads(FACTS.read_text())["combos"])


def _config(combo: str):
    model, *variants = combo.split("|")
    if model == "pi0_fast":
        return pi0_fast.Pi0FASTConfig(paligemma_variant=variants[0])
    return pi0_config.Pi0Config(pi05=model == "pi05", paligemma_variant=variants[0], action_expert_variant=variants[1])


def _paths(state: nnx.State) -> list[str]:
    return sorted("/".join(map(str, path)) for path, _ in nnx.to_flat_state(state))


@pytest.mark.parametrize("combo", COMBOS)
def test_frozen_and_trainable_leaves(combo, facts):
    config = _config(combo)
    state = nnx.state(nnx.eval_shape(config.create, jax.random.key(0)), nnx.Param)
    frozen, trainable = nnx.split_state(state, config.get_freeze_filter(), ...)
    want = facts("freeze_filters")["combos"][combo]
    assert _paths(frozen) == sorted(want["frozen"])
    assert _paths(trainable) == sorted(want["trainable"])
