import dataclasses
import itertools

import numpy as np
import pytest

from openpi_runtime.robots import load_robot
from openpi_sim.libero.expert import CLOSE, METRES_PER_UNIT, OPEN, RESPONSE, RIM, LiberoScript, PickAndPlaceExpert
from openpi_sim.script import Scene

BOWL, PLATE, HAND = np.array([0.0, 0.2, 0.9]), np.array([0.05, -0.1, 0.9]), np.array([-0.2, 0.0, 1.17])


def follow(actions, hand):
    for action in actions:
        hand = hand + RESPONSE * METRES_PER_UNIT * action[:3]
    return hand


@pytest.mark.parametrize("steps", [1, 3])
def test_bowl_is_gripped_at_its_rim_and_let_go_over_the_plate(steps):
    """A hand that answers as predicted, commanded by the first `steps` of each chunk."""
    expert, hand, grips = PickAndPlaceExpert(BOWL, PLATE, HAND), HAND, []
    for _ in range(600 // steps):
        actions = expert.chunk(hand, 10, elapsed=steps)
        assert actions.shape == (10, 7)
        assert np.abs(actions).max() <= 1.0
        for action in actions[:steps]:
            grips.append((action[6], hand))
            hand = follow([action], hand)
    changes = [at for (before, _), (after, at) in itertools.pairwise(grips) if before != after]
    assert [grips[0][0], grips[-1][0], len(changes)] == [OPEN, OPEN, 2]
    np.testing.assert_allclose(changes[0], BOWL + RIM, atol=0.01)
    np.testing.assert_allclose(changes[1][:2], (PLATE + RIM)[:2], atol=0.02)


def test_first_action_of_a_chunk_is_the_step_by_step_one():
    one, other, hand = PickAndPlaceExpert(BOWL, PLATE, HAND), PickAndPlaceExpert(BOWL, PLATE, HAND), HAND
    for _ in range(150):
        action = one.act(hand)
        np.testing.assert_array_equal(other.chunk(hand, 5)[0], action)
        hand = follow([action], hand)


def test_time_spent_waiting_counts():
    expert = PickAndPlaceExpert(BOWL, PLATE, HAND)
    hand, waits = HAND, 0
    for _ in range(600):
        action = expert.chunk(hand, 2)[0]
        if action[6] == CLOSE:
            break
        hand = follow([action], hand)
    while np.linalg.norm(expert.chunk(hand, 2, elapsed=4)[0][:3]) < 0.3:
        waits += 1
    assert waits < 6  # 12 steps of closing, four at a time


def test_script_sees_the_hand_in_the_state_and_the_task_in_the_first_objects():
    script = LiberoScript(load_robot("libero"))
    pose = [np.append(position, [1.0, 0, 0, 0]) for position in (BOWL, PLATE, HAND)]
    scene = Scene(
        objects=pose, prompt="pick up the black bowl and place it on the plate", state=np.append(HAND, [0] * 5)
    )
    with pytest.raises(RuntimeError, match="begun"):
        script.chunk(0, 10, scene)
    script.begin(scene)
    expected = PickAndPlaceExpert(BOWL, PLATE, HAND)
    for step in (0, 0, 1, 4):
        elapsed = {4: 3}.get(step, 1)
        np.testing.assert_array_equal(script.chunk(step, 10, scene), expected.chunk(HAND, 10, elapsed))
    with pytest.raises(ValueError, match="not 'open the drawer'"):
        script.begin(dataclasses.replace(scene, prompt="open the drawer"))
