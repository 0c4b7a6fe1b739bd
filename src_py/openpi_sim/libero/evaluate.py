"""Success rate on a LIBERO suite by the published protocol: a policy server's, or the scripted expert's."""

import dataclasses
import json
import os
import pathlib
import sys
from typing import Any, Literal

from openpi_sim.libero.benchmark import ResultLog, run_jobs, summarise
from openpi_sim.libero.interpreter import libero_python
from openpi_sim.libero.suites import find_suite


@dataclasses.dataclass(frozen=True)
class Args:
    """Runs what is not in the output folder yet; run the same command again to go on after an interruption."""

    suite: Literal["spatial", "object", "goal", "10", "90"] = "spatial"
    trials: int = 50
    """Episodes a task, each from an initial state of its own."""
    seed: int = 7
    server: str = ""
    """HOST:PORT of a policy server (`openpi serve`); empty: the scripted expert, which knows libero_spatial."""
    tasks: tuple[int, ...] = ()
    """Only these tasks of the suite; all of them when empty."""
    workers: int = 1
    """Episodes at once, each in a simulator of its own; about one a core."""
    render: bool | None = None
    """Render the cameras; by default only for a server, which needs them. Videos need it."""
    out: pathlib.Path = pathlib.Path("out/libero")
    """Gets <suite>/results.jsonl, summary.json and videos of failures."""
    through_ros: bool = False
    """Run the episodes through the stack: cameras, chunks and commands over ROS. With one worker and without --stack on
    the stack that is running (`openpi-up libero`); else each worker starts one, in a ROS domain of its own."""
    stack: tuple[str, ...] = ()
    """With --through-ros: arguments of `openpi-up libero` for the stacks to start, such as policy:=remote
    host:=192.168.1.20; without any they run the scripted expert."""
    namespace: str = ""
    """With --through-ros: the namespace of the stack that is running."""

    @property
    def starts_stacks(self) -> bool:
        """Whether each worker starts a stack, in place of the one that is running."""
        return self.through_ros and (self.workers > 1 or bool(self.stack))


def main(args: Args) -> int:
    """Runs the suite, prints a table, writes the summary; 0 if every episode ran, successful or not."""
    _check(args)
    folder = args.out / f"{args.suite}_seed{args.seed}_{_way(args)}"
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(folder / "protocol.json", _protocol(args))
    log = ResultLog(folder / "results.jsonl")
    tasks = args.tasks or range(find_suite(args.suite).tasks)
    jobs = [{"task": task, "trial": trial} for task in tasks for trial in range(args.trials)]
    _run(log, jobs, [_worker_command(args, folder, number) for number in range(args.workers)])
    chosen = {(job["task"], job["trial"]) for job in jobs}
    summary = summarise(result for result in log.results if (result["task"], result["trial"]) in chosen)
    (folder / "summary.json").write_text(json.dumps(_protocol(args) | summary, indent=1) + "\n", encoding="utf-8")
    _print_table(args, summary)
    print(f"Written to {folder}")
    return 1 if summary["errors"] else 0


def _check(args: Args) -> None:
    libero_python()
    if args.workers < 1:
        raise ValueError(f"--workers is {args.workers}; it must be at least 1.")
    _check_way(args)
    beyond = [task for task in args.tasks if not 0 <= task < find_suite(args.suite).tasks]
    if beyond:
        raise ValueError(f"Suite {args.suite} has tasks 0 to {find_suite(args.suite).tasks - 1}, not {beyond}.")
    if args.server and not args.server.rpartition(":")[2].isdigit():
        raise ValueError(f"--server must be HOST:PORT, for example 127.0.0.1:8000, not {args.server!r}.")


def _check_way(args: Args) -> None:
    if args.through_ros and args.server:
        raise ValueError("--through-ros asks the stack's own policy; leave --server out (--stack policy:=remote ...).")
    if args.stack and not args.through_ros:
        raise ValueError("--stack is for stacks that --through-ros starts; give both or neither.")
    if args.namespace and (args.starts_stacks or not args.through_ros):
        raise ValueError("--namespace finds the stack that is running; leave it out where none is used.")
    by_expert = not any(word.startswith("policy:=") and word != "policy:=expert" for word in args.stack)
    asks_stack = args.through_ros and not args.starts_stacks
    if args.suite != "spatial" and by_expert and not args.server and not asks_stack:
        raise ValueError(
            f"The scripted expert knows the suite spatial, not {args.suite}; give --server HOST:PORT, or with "
            "--through-ros --stack policy:=remote."
        )


def _way(args: Args) -> str:
    return "ros" if args.through_ros else "server" if args.server else "expert"


def _worker_command(args: Args, folder: pathlib.Path, number: int) -> list[str]:
    common = ["--suite", args.suite, "--seed", str(args.seed), "--videos", str(folder / "videos")]
    if args.through_ros:
        own = ["--namespace", args.namespace]
        if args.starts_stacks:
            own = ["--start-stack", str(folder / f"stack_{number}.log"), "--domain", str(_domain(number))]
            own += [f"--stack={word}" for word in args.stack]
        return [sys.executable, "-m", "openpi_ros.libero_worker", *common, *own]
    render = bool(args.server) if args.render is None else args.render
    own = ["--server", args.server, "--render" if render else "--no-render"]
    return [str(libero_python()), "-m", "openpi_sim.libero.worker", *common, *own]


def _domain(number: int) -> int:
    """One of the ROS domains after this shell's: 0 to 101 are free of the ports that Linux hands out."""
    return (int(os.environ.get("ROS_DOMAIN_ID") or 0) + 1 + number) % 102


def _run(log: ResultLog, jobs: list[dict[str, int]], commands: list[list[str]]) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    missing = log.missing(jobs)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    os.environ.setdefault("MUJOCO_GL", "egl")
    with Progress(*columns) as progress:
        bar = progress.add_task("episodes", total=len(jobs), completed=len(jobs) - len(missing))

        def on_result(result: dict[str, Any]) -> None:
            log.add(result)
            if "error" in result:
                print(f"task {result['task']} trial {result['trial']}: {result['error']}", file=sys.stderr)
            progress.advance(bar)

        run_jobs(missing, commands, on_result=on_result)


def _protocol(args: Args) -> dict[str, Any]:
    suite = find_suite(args.suite)
    return {"suite": suite.benchmark, "policy": _policy(args), "seed": args.seed, "max_steps": suite.max_steps}


def _check_same(path: pathlib.Path, protocol: dict[str, Any]) -> None:
    """Keeps results of different policies apart. Raises ValueError where the folder has another's."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else protocol
    if changed := [f"{name} {before.get(name)!r}" for name in protocol if before.get(name) != protocol[name]]:
        now = ", ".join(f"{name} {value!r}" for name, value in protocol.items() if before.get(name) != value)
        raise ValueError(f"{path.parent} has results of {', '.join(changed)}, and this is {now}; choose another --out.")
    path.write_text(json.dumps(protocol) + "\n", encoding="utf-8")


def _policy(args: Args) -> str:
    if not args.through_ros:
        return args.server or "scripted expert"
    return " ".join(["openpi-up libero", *args.stack]) if args.starts_stacks else "the running stack's"


def _print_table(args: Args, summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "episodes", "successes", "errors", "mean steps", title=find_suite(args.suite).benchmark)
    for task, tally in summary["tasks"].items():
        table.add_row(str(task), *(str(tally[key]) for key in ("episodes", "successes", "errors", "mean_steps")))
    table.add_section()
    table.add_row("all", *(str(summary[key]) for key in ("episodes", "successes", "errors")), "")
    Console().print(table)
    print(f"success rate {summary['success_rate']:.1%}")
