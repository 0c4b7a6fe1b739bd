"""Runs a suite on worker processes, keeps every result on disk, and sums them up."""

import collections
import contextlib
import json
import pathlib
import queue
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Job = dict[str, int]
Result = dict[str, Any]


class ResultLog:
    """One JSON line an episode; what is in it is not run again."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads what an earlier run left; a last line cut short by a kill is dropped."""
        self._path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        self.results: list[Result] = [json.loads(line) for line in text.split("\n")[:-1]]

    def add(self, result: Result) -> None:
        """Appends one result, flushed at once."""
        self.results.append(result)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """The jobs without a result; those that ended in an error are tried again."""
        done = {(result["task"], result["trial"]) for result in self.results if "error" not in result}
        return [job for job in jobs if (job["task"], job["trial"]) not in done]


def run_jobs(jobs: list[Job], command: list[str], *, workers: int, on_result: Callable[[Result], None]) -> None:
    """Hands the jobs to `workers` processes of `command`, whole tasks at a time, and reports each result.

    A worker that dies answers its job with an error and is started again for the next task.

    Args:
        jobs: what to run, see `openpi_sim.libero.worker`.
        command: how a worker is started.
        workers: how many run at once.
        on_result: called from one thread at a time.
    """
    tasks: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()
    for task in sorted({job["task"] for job in jobs}):
        tasks.put([job for job in jobs if job["task"] == task])
    lock = threading.Lock()

    def report(result: Result) -> None:
        with lock:
            on_result(result)

    threads = [threading.Thread(target=_serve_tasks, args=(tasks, command, report)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve_tasks(tasks: "queue.SimpleQueue[list[Job]]", command: list[str], report: Callable[[Result], None]) -> None:
    while True:
        try:
            jobs = tasks.get_nowait()
        except queue.Empty:
            return
        with _started(command) as worker:
            for job in jobs:
                report(_ask(worker, job))


@contextlib.contextmanager
def _started(command: list[str]) -> "Iterator[subprocess.Popen[str]]":
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield worker
    finally:
        with contextlib.suppress(BrokenPipeError):  # it died with a job in its pipe
            worker.communicate()


def _ask(worker: "subprocess.Popen[str]", job: Job) -> Result:
    if worker.stdin is None or worker.stdout is None:
        raise ValueError("The worker must be started with pipes for its input and output.")
    try:
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
    except BrokenPipeError:
        answer = ""
    if not answer:
        return job | {"error": f"the worker process died with exit status {worker.wait()}"}
    return json.loads(answer)


def summarise(results: Iterable[Result]) -> dict[str, Any]:
    """Success rates per task and over all, the newest result of a (task, trial) counting.

    Returns:
        {"tasks": {task: {"episodes", "successes", "errors", "mean_steps"}}, "episodes", "successes", "errors",
        "success_rate"}; an episode that ended in an error counts as an episode without success.
    """
    newest = {(result["task"], result["trial"]): result for result in results}
    by_task = collections.defaultdict(list)
    for (task, _), result in sorted(newest.items()):
        by_task[task].append(result)
    tasks = {task: _tally(group) for task, group in by_task.items()}
    total = {key: sum(tally[key] for tally in tasks.values()) for key in ("episodes", "successes", "errors")}
    rate = total["successes"] / total["episodes"] if total["episodes"] else 0.0
    return {"tasks": tasks, **total, "success_rate": round(rate, 4)}


def _tally(results: list[Result]) -> dict[str, Any]:
    steps = [result["steps"] for result in results if "steps" in result]
    return {
        "episodes": len(results),
        "successes": sum(bool(result.get("success")) for result in results),
        "errors": sum("error" in result for result in results),
        "mean_steps": round(sum(steps) / len(steps), 1) if steps else None,
    }
