"""What the policy node asks of whatever computes its chunks."""

from collections.abc import Mapping
from typing import Any, Protocol

STAMP, MEASURED = "stamp_ns", "measured"
"""Keys of an observation that are for backends only: its time, and the state [S] in the robot description's order."""


class BackendError(RuntimeError):
    """A backend could not answer this time; the node reports it and asks again later."""


class Backend(Protocol):
    """Computes action chunks. All methods but the constructor are called on the inference thread only.

    Attributes:
        metadata: what the policy says about itself (a server's greeting, a config's `policy_metadata`).
        uses_images: whether `infer` reads pictures; the node subscribes to no camera where it does not.
    """

    metadata: dict[str, Any]
    uses_images: bool

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Computes one chunk; may block for as long as its own time limit allows.

        Args:
            obs: what the robot's policies are sent (`openpi_runtime.observations`), the keys `STAMP` (the time the
                chunk begins at) and `MEASURED`, and for real-time chunking the keys `rtc/...` of
                `openpi.policies.rtc`, which a backend may ignore.

        Returns:
            "actions" [H, D] in robot units, where known "policy_timing" {"infer_ms"} and "rtc/frozen_steps".

        Raises:
            BackendError: no answer this time; the sentence is shown to the user.
        """
        ...

    def reset(self) -> None:
        """Forgets the episode so far: called when the prompt changes or a task starts."""
        ...

    def close(self) -> None:
        """Releases what the backend holds. Called once, after the last `infer`."""
        ...


def for_policy(obs: Mapping[str, Any]) -> dict[str, Any]:
    """The observation without what is for backends only."""
    return {key: value for key, value in obs.items() if key not in (STAMP, MEASURED)}
