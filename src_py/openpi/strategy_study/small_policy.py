"""A pi0 small enough to train in minutes on the scripted expert, for joining chunks: it sees state, not images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Float

from openpi.models import gemma, pi0_config, siglip
from openpi.models import model as _model
from openpi_sim.aloha.delayed import PolicyInput
from openpi_sim.aloha.expert import Expert
from openpi_sim.aloha.world import AlohaWorld

HORIZON = 50
DIM = 16  # 14 joints and grippers; in the state also x and y of the cube
FLOW_STEPS = 5
_IMAGE = 16
_TURN = 0.15  # rad, by which the second mode's wrists differ from the first's
_PERIOD_STEPS = 60


def demonstrations(episodes: int, seed: int = 0) -> list[tuple[Float[np.ndarray, "n 14"], Float[np.ndarray, 2]]]:
    """The expert's plans and where the cube was. Wrists turn to and fro, in half of the episodes the other way round.

    A state in passing then says nothing about which way comes next: neighbouring chunks choose differently, which is
    what makes boundaries hard.
    """
    rng = np.random.default_rng(seed)
    expert, world = Expert("transfer_cube"), AlohaWorld("transfer_cube")
    found = []
    for episode in range(episodes):
        world.reset(1000 + episode)
        plan = expert.plan(world.objects)
        wave = rng.choice([-1.0, 1.0]) * _TURN * np.sin(2 * np.pi * np.arange(len(plan)) / _PERIOD_STEPS)
        turned = plan.copy()
        turned[:, [3, 5, 10, 12]] += wave[:, None]
        found.append((turned, world.objects["box"][:2].copy()))
    return found


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Every chunk of the demonstrations: states [n, 16], actions [n, 50, 16], normalised by mean and std [16]."""

    states: np.ndarray
    actions: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def make_dataset(episodes: int) -> Dataset:
    """Chunks at every step; the state is the command before, with the noise of a measurement."""
    rng = np.random.default_rng(1)
    states, actions = [], []
    for plan, cube in demonstrations(episodes):
        rows = np.minimum(np.arange(len(plan))[:, None] + np.arange(HORIZON), len(plan) - 1)
        before = plan[np.maximum(np.arange(len(plan)) - 1, 0)] + rng.normal(0, 0.003, plan.shape)
        states.append(np.concatenate([before, np.tile(cube, (len(plan), 1))], axis=1))
        actions.append(np.concatenate([plan[rows], np.zeros((*rows.shape, 2))], axis=2))
    all_states, all_actions = np.concatenate(states), np.concatenate(actions)
    mean, std = all_states.mean(axis=0), all_states.std(axis=0) + 1e-3
    joints = np.where(np.arange(DIM) < 14, mean, 0.0), np.where(np.arange(DIM) < 14, std, 1.0)
    normal = (all_actions - joints[0]) / joints[1]
    return Dataset(((all_states - mean) / std).astype(np.float32), normal.astype(np.float32), mean, std)


def small_config() -> pi0_config.Pi0Config:
    """0.5 million parameters; the cameras are there and masked."""
    width = gemma.Config(width=96, depth=3, mlp_dim=256, num_heads=4, num_kv_heads=1, head_dim=24)
    return pi0_config.Pi0Config(
        action_dim=DIM,
        action_horizon=HORIZON,
        max_token_len=2,
        dtype="float32",
        paligemma_variant=width,
        action_expert_variant=width,
        vision_variant=siglip.Config(width=16, depth=1, mlp_dim=16, num_heads=1, patch_size=(_IMAGE, _IMAGE)),
        vocab_size=16,
        image_resolution=(_IMAGE, _IMAGE),
    )


def observe(states: jax.Array) -> _model.Observation:
    """States [b, 16] with masked cameras and an empty prompt."""
    batch = states.shape[0]
    return _model.Observation(
        images={name: jnp.zeros((batch, _IMAGE, _IMAGE, 3)) for name in _model.IMAGE_KEYS},
        image_masks={name: jnp.zeros(batch, bool) for name in _model.IMAGE_KEYS},
        state=states,
        tokenized_prompt=jnp.ones((batch, 2), jnp.int32),
        tokenized_prompt_mask=jnp.ones((batch, 2), bool),
    )


def train(data: Dataset, steps: int, say: Callable[[str], None], batch: int = 64) -> tuple[nnx.GraphDef, nnx.State]:
    """Trains with Adam and a cosine schedule; returns the model's graph and parameters."""
    graph, params = nnx.split(small_config().create(jax.random.key(0)))
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 20, steps), weight_decay=1e-4)
    state = optimizer.init(params)

    @jax.jit
    def step(params: nnx.State, state: optax.OptState, rng: jax.Array, states: jax.Array, actions: jax.Array) -> tuple:
        def loss(params: nnx.State) -> jax.Array:
            return nnx.merge(graph, params).compute_loss(rng, observe(states), actions).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    chooser = np.random.default_rng(2)
    for i in range(steps):
        rows = chooser.integers(0, len(data.states), batch)
        params, state, value = step(params, state, jax.random.key(i), data.states[rows], data.actions[rows])
        if i % 200 == 0 or i == steps - 1:
            say(f"step {i}: loss {float(value):.4f}")
    return graph, params


class SmallPolicy:
    """The trained model as a policy in robot units; real-time chunking by guidance with the true Jacobian."""

    def __init__(self, graph: nnx.GraphDef, params: nnx.State, data: Dataset, seed: int, rtc_mode: str = "vjp") -> None:
        self._mean = np.where(np.arange(DIM) < 14, data.mean, 0.0)
        self._std = np.where(np.arange(DIM) < 14, data.std, 1.0)
        self._state_mean, self._state_std = data.mean, data.std
        self._rng = jax.random.key(seed)
        params = jax.tree.map(jnp.asarray, params)  # read from a file they are numpy's

        def plain(rng: jax.Array, state: jax.Array) -> jax.Array:
            return nnx.merge(graph, params).sample_actions(rng, observe(state), num_steps=FLOW_STEPS)

        def guided(rng: jax.Array, state: jax.Array, prev: jax.Array, d: jax.Array, s: jax.Array) -> jax.Array:
            return nnx.merge(graph, params).sample_actions(
                rng,
                observe(state),
                num_steps=FLOW_STEPS,
                prev_actions=prev,
                delay=d,
                execution_horizon=s,
                rtc_mode=rtc_mode,
            )

        self._plain, self._guided = jax.jit(plain), jax.jit(guided)

    def reseed(self, seed: int) -> None:
        """Starts the noise afresh."""
        self._rng = jax.random.key(seed)

    def infer(self, observation: PolicyInput) -> tuple[Float[np.ndarray, "50 14"], int]:
        """A chunk, inpainted where the fields of real-time chunking are given."""
        self._rng, key = jax.random.split(self._rng)
        cube = observation.objects["box"][:2]
        state = (np.concatenate([observation.state, cube]) - self._state_mean) / self._state_std
        batch = jnp.asarray(state[None], jnp.float32)
        fields = observation.fields
        if "rtc/prev_actions" not in fields:
            return self._robot_units(self._plain(key, batch)), 0
        previous = np.pad(np.asarray(fields["rtc/prev_actions"]), ((0, 0), (0, DIM - 14)))
        normal = jnp.asarray((previous - self._mean)[None] / self._std, jnp.float32)
        delay, horizon = jnp.asarray(fields["rtc/delay"]), jnp.asarray(fields["rtc/execution_horizon"])
        actions = self._robot_units(self._guided(key, batch, normal, delay, horizon))
        return actions, int(delay)

    def _robot_units(self, actions: jax.Array) -> Float[np.ndarray, "50 14"]:
        return (np.asarray(actions[0], np.float64) * self._std + self._mean)[:, :14]
