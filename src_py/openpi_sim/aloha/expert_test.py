import numpy as np
import pytest

from openpi_sim.aloha import arms
from openpi_sim.aloha.expert import TOP_SPEED, Expert, arm_solver
from openpi_sim.aloha.world import AlohaWorld
from openpi_sim.inverse_kinematics import UnreachableError


def _run(world: AlohaWorld, expert: Expert, seed: int) -> bool:
    """Whether the task is solved for good: still at the plan's last step."""
    world.reset(seed)
    for command in expert.plan(world.objects):
        world.command(command)
        world.step()
    return world.success


@pytest.mark.parametrize(("task", "seeds", "least"), [("transfer_cube", 20, 19), ("insertion", 10, 9)])
def test_the_experts_solve_their_tasks(task, seeds, least):
    world, expert = AlohaWorld(task), Expert(task)
    assert sum(_run(world, expert, seed) for seed in range(seeds)) >= least


def test_the_right_hand_lets_the_cube_go():
    world, expert = AlohaWorld(), Expert()
    assert _run(world, expert, 0)
    touching = {world.model.geom(i).name for pair in world.data.contact.geom for i in pair}
    assert "vx300s_left/10_left_gripper_finger" in touching
    assert not any("vx300s_right/10" in name for name in touching)


def test_plans_start_at_the_start_pose_and_stay_within_limits_and_speed():
    world, expert = AlohaWorld(), Expert()
    limits = world.model.actuator_ctrlrange.reshape(2, 8, 2)[:, :6]
    for seed in range(5):
        world.reset(seed)
        plan = expert.plan(world.objects)
        steps = np.diff(np.vstack([arms.start_state(), plan]), axis=0)
        assert np.abs(steps).max() <= TOP_SPEED * 0.02 + 1e-9
        assert np.abs(steps[0]).max() < 1e-3
        joints = plan.reshape(-1, 2, 7)[..., :6]
        assert (joints > limits[..., 0] + 0.05).all()
        assert (joints < limits[..., 1] - 0.05).all()


def test_a_cube_out_of_reach_is_refused_with_the_place():
    with pytest.raises(UnreachableError, match=r"right arm does not reach \[-1\.5"):
        Expert().plan({"box": np.array([-1.5, 0.5, 0.02, 1, 0, 0, 0])})


def test_a_task_without_a_script_is_named():
    with pytest.raises(ValueError, match=r"'stack'.*transfer_cube"):
        Expert("stack")


def test_the_solver_finds_joint_angles_for_poses_it_can_take():
    solver = arm_solver(AlohaWorld(), "left")
    rng = np.random.default_rng(0)
    start = arms.start_state()[:6]
    for _ in range(10):
        q = start + rng.uniform(-0.3, 0.3, 6)
        position, rotation = solver.pose(q)
        found = solver.solve(position, rotation, start)
        reached, turned = solver.pose(found)
        np.testing.assert_allclose(reached, position, atol=1e-4)
        np.testing.assert_allclose(turned, rotation, atol=1e-4)
