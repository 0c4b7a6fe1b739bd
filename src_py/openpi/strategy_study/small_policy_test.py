import jax
import numpy as np
import pytest

from openpi.strategy_study import small_policy
from openpi_sim.aloha.delayed import PolicyInput
from openpi_sim.aloha.world import AlohaWorld


@pytest.fixture(scope="module")
def seen() -> small_policy.Demonstrations:
    return small_policy.demonstrate(2, 60, seed=3)


def test_demonstrations_are_made_again_from_their_seed(seen: small_policy.Demonstrations) -> None:
    again = small_policy.demonstrate(2, 60, seed=3)
    np.testing.assert_array_equal(seen.actions, again.actions)
    np.testing.assert_array_equal(seen.states, again.states)
    assert not np.array_equal(seen.actions, small_policy.demonstrate(2, 60, seed=4).actions)


def test_scale_goes_there_and_back(seen: small_policy.Demonstrations) -> None:
    scale = small_policy.Scale.of(seen)
    normal = scale.actions(seen.actions, seen.states)
    assert np.abs(normal[:, :, :14].mean(axis=0)).max() < 1e-3
    assert scale.robot_units(normal[7], seen.states[7]) == pytest.approx(seen.actions[7], abs=1e-5)


def test_what_was_sent_reaches_the_model_in_its_units_and_comes_back(
    seen: small_policy.Demonstrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = small_policy.SmallPolicy(None, None, small_policy.Scale.of(seen))
    told = []

    def echo(key: jax.Array, state: np.ndarray, previous: np.ndarray, delay: jax.Array, executed: jax.Array) -> object:
        told.append((previous, int(delay), int(executed)))
        return previous

    monkeypatch.setattr(policy, "_guided", echo)
    world = AlohaWorld("transfer_cube")
    fields = {"rtc/prev_actions": seen.actions[9], "rtc/delay": 6, "rtc/execution_horizon": 30}
    actions, frozen = policy.infer(
        PolicyInput(state=world.state, command=world.state, objects=world.objects, fields=fields)
    )
    assert actions == pytest.approx(seen.actions[9], abs=1e-5)
    assert (frozen, *told[0][1:]) == (6, 6, 30)
    assert told[0][0].shape == (1, 50, 16)
