"""`libero_sim_node`: a task of LIBERO behind topics like a real robot's. Runs under the Python that has LIBERO."""

import os
import sys
from collections.abc import Sequence

from std_msgs.msg import String

from openpi_ros import lifecycle, qos
from openpi_ros.sim_node import SimulationNode
from openpi_runtime.robots import RobotSpec
from openpi_sim.libero.interpreter import has_libero, libero_python
from openpi_sim.libero.stage import LiberoStage, Scene


class LiberoSimNode(SimulationNode):
    """The Panda of LIBERO, commanded by deltas of its hand; `~/reset` starts the scene of the parameters."""

    name = "libero_sim_node"
    reset_timeout_s = 120.0  # a task is loaded
    world_frame = "libero_world"  # the arm's base, the root of its URDF, stands elsewhere in each scene

    def set_up(self) -> None:
        if not self.params["render"]:
            self.params["cameras"] = []
        super().set_up()

    def make_world(self, robot: RobotSpec) -> LiberoStage:
        self._instruction = self.create_publisher(String, "sim/instruction", qos.LATCHED)
        self._stage = LiberoStage(self._scene())
        return self._stage

    def begin_episode(self) -> int:
        self._stage.choose(self._scene())
        episode = super().begin_episode()
        self._instruction.publish(String(data=self._stage.instruction))
        self.get_logger().info(f"Suite {self.params['suite']}, task {self.params['task']}: {self._stage.instruction}")
        return episode

    def _scene(self) -> Scene:
        return Scene(suite=self.params["suite"], task=self.params["task"], trial=self.params["trial"])


def main(args: Sequence[str] | None = None) -> int:
    """The process `libero_sim_node`; where LIBERO is not installed, it goes on under the Python of `.venv-libero`."""
    if not has_libero():
        return _continue_elsewhere(sys.argv[1:] if args is None else args)
    return lifecycle.run(LiberoSimNode, args)


def _continue_elsewhere(args: Sequence[str]) -> int:
    try:
        python = str(libero_python())
    except FileNotFoundError as error:
        print(f"{LiberoSimNode.name}: {error}", file=sys.stderr)
        return 1
    return os.execv(python, [python, "-m", "openpi_ros.libero_sim_node", *args])


if __name__ == "__main__":
    sys.exit(main())
