"""One server to be measured, as a script: `benchmark_server.py ours|published instant|accelerator|tiny PORT [SITE]`.

It also runs under the interpreter that has only the published packages, so it imports what it needs where it needs
it. SITE is a folder of packages to look into last: the published server, for policies that need our interpreter.
"""

import sys
import time
from typing import Any

import numpy as np

RUN_S = 0.02  # one run of an accelerator, whatever the size of the batch
CHUNK = np.zeros((50, 14), np.float32)


class Instant:
    """Answers at once: what is left is the server's own time."""

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """The same chunk for everybody."""
        return {"actions": CHUNK}

    def infer_batch(self, observations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One chunk each."""
        return [self.infer(obs) for obs in observations]

    def reset(self) -> None:
        """Nothing to forget."""


class Accelerator(Instant):
    """Takes as long for a batch as for one observation, as a GPU does while the batch is small."""

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        time.sleep(RUN_S)
        return {"actions": CHUNK}

    def infer_batch(self, observations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        time.sleep(RUN_S)
        return [{"actions": CHUNK} for _ in observations]


def make_policy(name: str) -> Any:
    """The policy of this name: a stub, or the tiny model with random weights."""
    if name != "tiny":
        return {"instant": Instant, "accelerator": Accelerator}[name]()
    from openpi.policies import aloha_policy, policy_config
    from openpi.serving.batch_policy import BatchPolicy
    from openpi.training import config

    policy = BatchPolicy(policy_config.create_random_policy(config.get_config("pi0_aloha_sim_small")), sizes=(1, 4))
    policy.warm_up(aloha_policy.make_aloha_example())
    return policy


def main(which: str, policy_name: str, port: str, site: str = "") -> None:
    """Serve until killed."""
    server: Any
    if which == "ours":
        from openpi.serving.websocket_policy_server import WebsocketPolicyServer as Server

        server = Server(make_policy(policy_name), "127.0.0.1", int(port))
    else:
        sys.path += [site] if site else []
        from openpi_server.websocket_policy_server import WebsocketPolicyServer as PublishedServer

        server = PublishedServer(make_policy(policy_name), "127.0.0.1", int(port), metadata={})
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
