"""One episode of the published protocol: settle, then act until success or the suite's step limit."""

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from openpi_sim.libero.expert import PickAndPlaceExpert
from openpi_sim.libero.suites import REPLAN_STEPS
from openpi_sim.libero.world import ACTION_DIM, Frame, LiberoWorld

POLICY_IMAGE_SIZE: Final = 224
BOWL: Final = "akita_black_bowl_1"
PLATE: Final = "plate_1"


class Actor(Protocol):
    """Chooses one action a step."""

    def act(self, frame: Frame) -> NDArray[np.float64]:
        """The action [7] for this frame."""


class InferPolicy(Protocol):
    """What a policy server's client offers."""

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Observation -> {"actions": [H, >= 7], ...}."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an episode ended.

    Attributes:
        success: the task's goal held within the limit.
        steps: control steps taken, the settling ones not counted.
        frames: images of the agent's view, uint8 [T][H, W, 3]; empty without rendering.
    """

    success: bool
    steps: int
    frames: list[NDArray[np.uint8]]


class ChunkActor:
    """Executes the first steps of each chunk of a policy, then asks for the next, as LIBERO results are published."""

    def __init__(self, policy: InferPolicy, prompt: str, *, replan_steps: int = REPLAN_STEPS) -> None:
        """Asks `policy` with `prompt` every `replan_steps` steps."""
        self._policy = policy
        self._prompt = prompt
        self._replan_steps = replan_steps
        self._due: deque[NDArray[np.float64]] = deque()

    def act(self, frame: Frame) -> NDArray[np.float64]:
        """The next step of the chunk.

        Raises:
            ValueError: the policy's chunk is too short or too narrow.
        """
        if not self._due:
            self._due.extend(self._request(frame))
        return self._due.popleft()

    def _request(self, frame: Frame) -> NDArray[np.float64]:
        actions = np.asarray(self._policy.infer(policy_observation(frame, self._prompt))["actions"], dtype=np.float64)
        if actions.ndim != 2 or len(actions) < self._replan_steps or actions.shape[1] < ACTION_DIM:
            raise ValueError(
                f"The policy answered with actions of shape {actions.shape}; LIBERO needs at least "
                f"({self._replan_steps}, {ACTION_DIM}). Is this a LIBERO policy?"
            )
        return actions[: self._replan_steps, :ACTION_DIM]


def policy_observation(frame: Frame, prompt: str) -> dict[str, Any]:
    """What LIBERO policies are given: both images at 224 by 224, the state [8] and the instruction."""
    from openpi_client import image_tools  # Pillow only where images are sent

    def small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image_tools.resize_with_pad(image, POLICY_IMAGE_SIZE, POLICY_IMAGE_SIZE)

    return {
        "observation/image": small(frame.images["agentview"]),
        "observation/wrist_image": small(frame.images["eye_in_hand"]),
        "observation/state": frame.state,
        "prompt": prompt,
    }


def run_episode(
    world: LiberoWorld, trial: int, make_actor: Callable[[Frame, str], Actor], *, max_steps: int
) -> Outcome:
    """Runs one trial of the world's task.

    Args:
        world: the loaded task.
        trial: which initial state.
        make_actor: builds the actor from the settled scene and the task's instruction.
        max_steps: control steps after which the episode has failed.
    """
    frame = world.reset(trial)
    actor = make_actor(frame, world.language)
    views = []
    for step in range(max_steps):
        if "agentview" in frame.images:
            views.append(frame.images["agentview"])
        frame = world.step(actor.act(frame))
        if frame.success:
            return Outcome(success=True, steps=step + 1, frames=views)
    return Outcome(success=False, steps=max_steps, frames=views)


class ExpertActor:
    """The scripted expert of libero_spatial."""

    def __init__(self, frame: Frame, prompt: str) -> None:
        """Plans from the first frame, whatever the instruction.

        Raises:
            ValueError: the scene has no bowl to put on a plate.
        """
        missing = {BOWL, PLATE} - set(frame.objects)
        if missing:
            raise ValueError(f"The expert moves the black bowl to the plate; this scene lacks {sorted(missing)}.")
        self._expert = PickAndPlaceExpert(frame.objects[BOWL][:3], frame.objects[PLATE][:3], frame.hand[:3])

    def act(self, frame: Frame) -> NDArray[np.float64]:
        """The next action [7]."""
        return self._expert.act(frame.hand[:3])
