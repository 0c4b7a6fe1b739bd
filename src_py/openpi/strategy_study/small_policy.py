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
FLOW_STEPS = 10
LONGEST_DELAY = 20  # steps for which the model is trained to take given actions
_IMAGE = 16
_TURN = 0.15  # rad, by which the second mode's wrists differ from the first's
_PERIOD_STEPS = 60
_SWAY = 0.02  # rad, by which a demonstration strays from its plan
_SWAY_STEPS = 25  # how slowly
_RETURN_STEPS = 15  # in which the actions lead back to the plan
_JOINTS = np.arange(14) % 7 != 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """What was seen and done at every step.

    Attributes:
        states: [n, 16], measured joints and grippers, then x and y of the cube.
        actions: [n, 50, 14], commands from that step on, rad and runtime units.
    """

    states: Float[np.ndarray, "n 16"]
    actions: Float[np.ndarray, "n 50 14"]


def demonstrate(episodes: int, ticks: int, seed: int) -> Demonstrations:
    """Runs the expert in the simulator, with two modes: wrists turn to and fro, in half of the episodes the other way.

    A state in passing then says nothing about which way comes next: neighbouring chunks choose differently, which is
    what makes boundaries hard. The arms stray slowly from the plan, and every chunk leads back to it from where they
    are, so that the model knows states beside the plan too.
    """
    rng = np.random.default_rng(seed)
    expert, world = Expert("transfer_cube"), AlohaWorld("transfer_cube")
    states, actions = [], []
    for episode in range(episodes):
        world.reset(1000 + episode)
        plan = expert.plan(world.objects)
        wave = rng.choice([-1.0, 1.0]) * _TURN * np.sin(2 * np.pi * np.arange(len(plan)) / _PERIOD_STEPS)
        plan[:, [3, 5, 10, 12]] += wave[:, None]
        for tick, offset in enumerate(_sway(ticks, rng)):
            rows = np.minimum(tick + np.arange(HORIZON), len(plan) - 1)
            states.append(policy_state(world.state, world.objects))
            actions.append(plan[rows] + offset * np.exp(-np.arange(HORIZON) / _RETURN_STEPS)[:, None])
            world.command(actions[-1][0])
            world.step()
    return Demonstrations(states=np.array(states), actions=np.array(actions))


def _sway(ticks: int, rng: np.random.Generator) -> Float[np.ndarray, "n 14"]:
    """A smooth random walk about 0 for each joint: white noise, smoothed twice."""
    kernel = np.exp(-np.arange(5 * _SWAY_STEPS) / _SWAY_STEPS)
    kernel = np.convolve(kernel, kernel)
    noise = rng.normal(0.0, _SWAY / np.linalg.norm(kernel), (ticks, 14)) * _JOINTS
    return np.apply_along_axis(lambda column: np.convolve(column, kernel)[:ticks], 0, noise)


def policy_state(state: Float[np.ndarray, 14], objects: dict[str, Float[np.ndarray, 7]]) -> Float[np.ndarray, 16]:
    """What the model sees: measured joints and grippers, x and y of the cube."""
    return np.concatenate([state, objects["box"][:2]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """From robot units to the model's: joint actions relative to the measured state, each step with its own spread.

    Attributes:
        state_mean, state_std: [16]. mean, std: [50, 14], of the relative actions.
    """

    state_mean: Float[np.ndarray, 16]
    state_std: Float[np.ndarray, 16]
    mean: Float[np.ndarray, "50 14"]
    std: Float[np.ndarray, "50 14"]

    @classmethod
    def of(cls, seen: Demonstrations) -> Scale:
        """Mean and standard deviation of demonstrations."""
        relative = seen.actions - _base(seen.states)[:, None]
        return cls(
            state_mean=seen.states.mean(axis=0),
            state_std=seen.states.std(axis=0) + 1e-3,
            mean=relative.mean(axis=0),
            std=relative.std(axis=0) + 2e-3,
        )

    def states(self, states: Float[np.ndarray, "n 16"]) -> Float[np.ndarray, "n 16"]:
        """As the model takes them."""
        return ((states - self.state_mean) / self.state_std).astype(np.float32)

    def actions(self, actions: Float[np.ndarray, "n 50 14"], states: Float[np.ndarray, "n 16"]) -> np.ndarray:
        """As the model makes them, [n, 50, 16]."""
        normal = (actions - _base(states)[:, None] - self.mean) / self.std
        return np.pad(normal, ((0, 0), (0, 0), (0, DIM - 14))).astype(np.float32)

    def robot_units(self, actions: np.ndarray, state: Float[np.ndarray, 16]) -> Float[np.ndarray, "50 14"]:
        """The way back, for one chunk [50, 16]."""
        return actions[:, :14].astype(np.float64) * self.std + self.mean + _base(state)


def _base(states: Float[np.ndarray, "*n 16"]) -> Float[np.ndarray, "*n 14"]:
    return np.where(_JOINTS, states[..., :14], 0.0)


def small_config() -> pi0_config.Pi0Config:
    """A quarter of a million parameters; the cameras are there and masked."""
    width = gemma.Config(width=64, depth=3, mlp_dim=128, num_heads=4, num_kv_heads=1, head_dim=16)
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
        max_simulated_delay=LONGEST_DELAY,
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


def train(
    seen: Demonstrations, scale: Scale, steps: int, seed: int, say: Callable[[str], None], batch: int = 32
) -> tuple[nnx.GraphDef, nnx.State]:
    """Trains with Adam and a cosine schedule; returns the model's graph and parameters."""
    states, actions = scale.states(seen.states), scale.actions(seen.actions, seen.states)
    graph, params = nnx.split(small_config().create(jax.random.key(seed)))
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 20, steps), weight_decay=1e-4)
    state = optimizer.init(params)

    @jax.jit
    def step(params: nnx.State, state: optax.OptState, rng: jax.Array, states: jax.Array, actions: jax.Array) -> tuple:
        def loss(params: nnx.State) -> jax.Array:
            return nnx.merge(graph, params).compute_loss(rng, observe(states), actions, train=True).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    chooser = np.random.default_rng(seed)
    for i in range(steps):
        rows = chooser.integers(0, len(states), batch)
        params, state, value = step(params, state, jax.random.key(i), states[rows], actions[rows])
        if i % 200 == 0 or i == steps - 1:
            say(f"step {i}: loss {float(value):.4f}")
    return graph, params


class SmallPolicy:
    """The model as a policy in robot units, with real-time chunking by one of the model's ways (`rtc_mode`)."""

    def __init__(self, graph: nnx.GraphDef, params: nnx.State, scale: Scale, rtc_mode: str = "vjp") -> None:
        self._scale = scale
        self._rng = jax.random.key(0)

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
        state = policy_state(observation.state, observation.objects)
        normal, fields = self._scale.states(state[None]), observation.fields
        if "rtc/prev_actions" not in fields:
            return self._scale.robot_units(np.asarray(self._plain(key, normal)[0]), state), 0
        previous = self._scale.actions(np.asarray(fields["rtc/prev_actions"])[None], state[None])
        delay, executed = jnp.asarray(fields["rtc/delay"]), jnp.asarray(fields["rtc/execution_horizon"])
        actions = self._guided(key, normal, previous, delay, executed)
        return self._scale.robot_units(np.asarray(actions[0]), state), int(delay)
