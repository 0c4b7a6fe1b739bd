"""What the policy node asks of whatever computes its chunks."""

from typing import Any, Protocol


class BackendError(RuntimeError):
    """A backend could not answer this time; the node reports it and asks again later."""


class Backend(Protocol):
    """Computes action chunks. All methods but the constructor are called on the inference thread only.

    Attributes:
        metadata: what the policy says about itself (a server's greeting, a config's `policy_metadata`).
        uses_images: whether `infer` reads "images"; the node subscribes to no camera where it does not.
    """

    metadata: dict[str, Any]
    uses_images: bool

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Computes one chunk; may block for as long as its own time limit allows.

        Args:
            obs: "state" [S] float64 in robot units, "images" {camera: uint8 [3, H, W]}, "prompt" str, "stamp_ns" (the
                time the chunk begins at); for real-time
                chunking also the keys `rtc/...` of `openpi.policies.rtc`, which a backend may ignore.

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
