"""What a scripted expert offers to whoever asks it for chunks of actions."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float

from openpi_sim.world import Pose


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """What an expert knows at one moment.

    Attributes:
        objects: true poses, in the simulator's order.
        prompt: the instruction.
        state: the measured state, in the order of the robot description.
    """

    objects: Sequence[Pose]
    prompt: str
    state: Float[np.ndarray, " columns"]


class Script(Protocol):
    """One robot's expert.

    Attributes:
        by_prompt: whether another prompt in the middle of an episode is another plan.
    """

    by_prompt: bool

    def begin(self, scene: Scene) -> None:
        """Plan what is done from this scene on.

        Raises:
            ValueError: there is no plan for it; says why.
        """

    def chunk(self, step: int, horizon: int, scene: Scene) -> Float[np.ndarray, "horizon columns"]:
        """Actions for `horizon` steps of the plan from `step` on; past its end the robot stays."""
