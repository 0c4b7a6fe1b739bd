"""Measure the policy server beside the published one: openpi bench server [--json FILE]."""

import dataclasses
import json
from pathlib import Path

POLICIES = ("instant", "accelerator", "tiny")
COLUMNS = ("server", "policy", "observation", "clients", "p50_ms", "p99_ms", "requests_per_s")


@dataclasses.dataclass(frozen=True)
class Args:
    """Options of `openpi bench server`."""

    clients: tuple[int, ...] = (1, 4, 16)
    policies: tuple[str, ...] = POLICIES
    """instant: answers at once. accelerator: 20 ms a run, whatever the batch. tiny: pi0_aloha_sim_small."""
    requests: int = 300
    """Requests a round, over all clients."""
    rounds: int = 3
    """The two servers take turns so often."""
    published: bool = True
    """Install PyPI's openpi-server in an environment of its own and measure it too."""
    json: Path | None = None
    """File for the figures."""

    def __post_init__(self) -> None:
        unknown = set(self.policies) - set(POLICIES)
        if unknown:
            raise ValueError(f"There is no policy {', '.join(unknown)}; there are {', '.join(POLICIES)}.")


def main(args: Args) -> int:
    """Measure, print a table, write JSON."""
    from rich.console import Console
    from rich.progress import track

    from openpi.serving import benchmark, published

    python = published.interpreter("openpi") if args.published else None
    rows: list[dict[str, object]] = []
    for load in track(loads(args), "Measuring", console=Console(stderr=True), transient=True):
        rows += [figures.row() for figures in benchmark.measure(load, python, args.rounds)]
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def loads(args: Args) -> "list[benchmark.Load]":
    """Everything to be measured."""
    from openpi.serving import benchmark

    result = [
        benchmark.Load(policy, clients, "3x224", max(10, _total(policy, args.requests) // clients))
        for policy in args.policies
        for clients in args.clients
    ]
    return [*result, benchmark.Load("instant", 1, "640x480", args.requests)]


def table(rows: list[dict[str, object]]) -> str:
    """The figures in Markdown."""
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    lines += [" | ".join(str(row[column]) for column in COLUMNS) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _total(policy: str, requests: int) -> int:
    return requests if policy == "instant" else max(1, requests // 2)
