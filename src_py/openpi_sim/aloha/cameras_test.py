import contextlib

import numpy as np
import pytest

from openpi_sim.aloha.world import CAMERAS, AlohaWorld
from openpi_sim.cameras import optical_pose
from openpi_sim.gl import RenderingError, mujoco


@pytest.fixture(scope="module")
def world() -> AlohaWorld:
    return AlohaWorld()


@pytest.fixture(scope="module")
def cameras(world):
    try:
        with contextlib.closing(world.open_cameras(tuple(CAMERAS))) as cameras:
            yield cameras
    except RenderingError as error:
        pytest.skip(str(error))


def _red_centre(image: np.ndarray) -> np.ndarray:
    red = (image[..., 0] > 150) & (image[..., 1] < 100)
    rows, columns = np.nonzero(red)
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize(("name", "seed"), [("cam_high", 3), ("cam_low", 4)])
def test_the_cube_is_seen_where_intrinsics_and_pose_project_it(world, cameras, name, seed):
    world.reset(seed)
    image = cameras.render(name)
    assert image.shape == (480, 640, 3)
    assert image.dtype == np.uint8
    # Seen from the front the near and the far faces do not balance: compare with the projection of all corners.
    offsets = 0.02 * np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    corners = (
        np.linalg.inv(optical_pose(world.data, CAMERAS[name])) @ np.c_[world.objects["box"][:3] + offsets, np.ones(8)].T
    )
    pixels = world.intrinsics(name, 640, 480).matrix @ corners[:3]
    expected = (pixels[:2] / pixels[2]).mean(axis=1)
    np.testing.assert_allclose(_red_centre(image), expected, atol=2.0)


def test_wrist_cameras_turn_with_the_wrist(world):
    world.reset(0)
    before = optical_pose(world.data, CAMERAS["cam_left_wrist"])
    state = world.state
    state[5] += 0.5
    world.place_arms(state)
    mujoco.mj_forward(world.model, world.data)
    after = optical_pose(world.data, CAMERAS["cam_left_wrist"])
    hand = world.data.body("vx300s_left/gripper_link").xmat.reshape(3, 3)[:, 0]
    turn = after[:3, :3] @ before[:3, :3].T
    assert np.arccos((np.trace(turn) - 1) / 2) == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_allclose(turn @ hand, hand, atol=1e-6)


def test_an_unknown_camera_is_named_with_the_known_ones(world):
    with pytest.raises(ValueError, match=r"'cam_top'.*cam_high"):
        world.open_cameras(("cam_top",))
