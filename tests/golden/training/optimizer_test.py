"""Schedules and optimizers against the reference's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from openpi.training import optimizer

SCHEDULES = {
    "cosine_default": optimizer.CosineDecaySchedule(),
    "cosine_w100_p1e-3_d1000_e1e-4": optimizer.CosineDecaySchedule(100, 1e-3, 1000, 1e-4),
    "cosine_droid_w1000_p5e-5_d1000000_e5e-5": optimizer.CosineDecaySchedule(1000, 5e-5, 1_000_000, 5e-5),
    "rsqrt_default": optimizer.RsqrtDecaySchedule(),
}

OPTIMIZERS = {
    "adamw_const_sched": optimizer.AdamW(),
    "adamw_wd": optimizer.AdamW(weight_decay=0.1, clip_gradient_norm=0.5),
    "sgd": optimizer.SGD(momentum=0.9),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name, golden):
    table = json.loads(golden("transforms/INDEX.json").read_text())["entries"]["optimizer"]["extra"]
    schedule = SCHEDULES[name].create()
    got = [float(schedule(jnp.int32(step))) for step in table["steps"]]
    np.testing.assert_allclose(got, table["lr"][name], rtol=2e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_updates(name, golden):
    arrays = np.load(golden("transforms/optimizer.npz"))

    def tree(prefix):
        return {leaf: jnp.asarray(arrays[f"{prefix}/{leaf}"]) for leaf in ("a", "b")}

    schedule = optimizer.CosineDecaySchedule(warmup_steps=2, peak_lr=1e-2, decay_steps=10, decay_lr=1e-3)
    tx = optimizer.create_optimizer(OPTIMIZERS[name], schedule)
    params = tree("in/p")
    state = tx.init(params)
    for step in range(5):
        updates, state = tx.update(tree(f"in/g{step}"), state, params)
        params = optax.apply_updates(params, updates)
        want = tree(f"out/{name}/p{step}")
        jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7), params, want)
