"""Measure the policy server beside the published one: openpi bench server [--json FILE]."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openpi.serving.benchmark import Load

POLICIES = {"instant": 2.0, "accelerator": 0.5, "tiny": 0.5}  # with the share of requests that they are worth
MEASURED = ("p50_ms", "p99_ms", "requests_per_s", "p50_ratio", "p99_ratio")
COLUMNS = ("server", "policy", "observation", "clients", "client", *MEASURED)


@dataclasses.dataclass(frozen=True)
class Args:
    """Options of `openpi bench server`."""

    clients: tuple[int, ...] = (1, 4, 16)
    policies: tuple[str, ...] = tuple(POLICIES)
    """instant: answers at once. accelerator: 20 ms a run, whatever the batch. tiny: pi0_aloha_sim_small."""
    requests: int = 100
    """Requests a turn, over all clients; twice as many of instant, half as many of the others."""
    rounds: int = 10
    """Turns of each of two servers, in random order; a fifth as many with several clients."""
    starts: int = 3
    """How often the two servers are started afresh, for so many turns each."""
    published: bool = True
    """Install PyPI's openpi-server in an environment of its own and measure it too."""
    json: Path | None = None
    """File for the figures."""

    def __post_init__(self) -> None:
        unknown = set(self.policies) - POLICIES.keys()
        if unknown:
            raise ValueError(f"There is no policy {', '.join(unknown)}; there are {', '.join(POLICIES)}.")


def main(args: Args) -> int:
    """Measure, print a table, write JSON."""
    from rich.console import Console
    from rich.progress import track

    from openpi.serving import benchmark, published

    python = published.interpreter("openpi") if args.published else None
    wanted = loads(args)
    policies = track(args.policies, "Measuring", console=Console(stderr=True), transient=True)
    rows = [
        row
        for policy in policies
        for row in benchmark.measure(policy, wanted[policy], python, args.starts, args.rounds)
    ]
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def loads(args: Args) -> "dict[str, list[Load]]":
    """Everything to be measured, by policy."""
    from openpi.serving.benchmark import Load

    result: dict[str, list[Load]] = {}
    for policy in args.policies:
        requests = int(args.requests * POLICIES[policy])
        shared = [Load(policy, clients, "3x224", max(2, requests // clients)) for clients in args.clients]
        result[policy] = [*shared, Load(policy, 1, "3x224", max(2, requests), client="own")]
        if policy == "instant":
            result[policy].append(Load(policy, 1, "640x480", max(2, requests)))
    return result


def table(rows: list[dict[str, object]]) -> str:
    """The figures in Markdown."""
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    lines += [" | ".join(str(row.get(column, "")) for column in COLUMNS) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
