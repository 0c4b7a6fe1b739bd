import os
import subprocess
import sys

_PROBE = """
from openpi_sim.aloha.world import AlohaWorld
from openpi_sim.gl import RenderingError
world = AlohaWorld()
world.step()
try:
    world.open_cameras(("cam_high",))
except RenderingError as error:
    print(error)
"""


def test_physics_runs_and_cameras_say_what_to_install_where_nothing_can_render():
    # PyOpenGL set to another platform than EGL is what a missing library looks like to MuJoCo.
    environment = os.environ | {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "glx"}
    told = subprocess.run(
        [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "MUJOCO_GL=egl" in told
    assert "apt install libegl1" in told
