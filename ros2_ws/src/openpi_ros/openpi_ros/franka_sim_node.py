"""`franka_sim_node`: a simulated Franka Panda behind the topics of the real one, commanded as DROID commands it."""

import sys
from collections.abc import Sequence

from openpi_ros import lifecycle
from openpi_ros.sim_node import SimulationNode
from openpi_runtime.robots import RobotSpec
from openpi_sim.franka.world import FrankaWorld


class FrankaSimNode(SimulationNode):
    """A Panda at a table with three cubes, its joints held by stiff servos."""

    name = "franka_sim_node"

    def make_world(self, robot: RobotSpec) -> FrankaWorld:
        return FrankaWorld(robot.urdf_path, self.params["cube"])


def main(args: Sequence[str] | None = None) -> int:
    """The process `franka_sim_node`."""
    return lifecycle.run(FrankaSimNode, args)


if __name__ == "__main__":
    sys.exit(main())
