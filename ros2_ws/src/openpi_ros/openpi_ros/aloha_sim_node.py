"""`aloha_sim_node`: the simulated ALOHA behind the topics of the real one."""

import sys
from collections.abc import Sequence

from openpi_ros import lifecycle
from openpi_ros.sim_node import SimulationNode
from openpi_runtime.robots import RobotSpec
from openpi_sim.aloha.world import AlohaWorld


class AlohaSimNode(SimulationNode):
    """Two ViperX 300 S and a task of gym-aloha."""

    name = "aloha_sim_node"

    def make_world(self, robot: RobotSpec) -> AlohaWorld:
        return AlohaWorld(self.params["task"])


def main(args: Sequence[str] | None = None) -> int:
    """The process `aloha_sim_node`."""
    return lifecycle.run(AlohaSimNode, args)


if __name__ == "__main__":
    sys.exit(main())
