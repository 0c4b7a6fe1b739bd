"""Runs a suite on worker processes, keeps every result on disk, and sums them up."""

import collections
import contextlib
import json
import pathlib
import queue
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

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


class WorkerError(ConnectionError):
    """A worker could not start; says why in its own words."""


def run_jobs(jobs: list[Job], commands: Sequence[list[str]], *, on_result: Callable[[Result], None]) -> None:
    """Hands the jobs to one worker process of each command, whole tasks at a time, and reports each result.

    A worker that dies answers its job with an error and is started again for the next task. Interrupted, all workers
    end and no other is started.

    Args:
        jobs: what to run, see `openpi_sim.libero.worker`.
        commands: how each worker is started.
        on_result: called from one thread at a time.

    Raises:
        WorkerError: a worker could not start.
    """
    crew = _Crew(jobs, on_result)
    threads = [threading.Thread(target=crew.serve, args=(command,)) for command in commands]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        crew.stop()
    if crew.failure is not None:
        raise crew.failure


class _Crew:
    """What the threads of all workers share.

    Attributes:
        failure: why a worker could not start.
    """

    def __init__(self, jobs: list[Job], on_result: Callable[[Result], None]) -> None:
        self.failure: WorkerError | None = None
        self._tasks: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()
        for task in sorted({job["task"] for job in jobs}):
            self._tasks.put([job for job in jobs if job["task"] == task])
        self._on_result = on_result
        self._lock = threading.Lock()
        self._stopped = False
        self._workers: list[subprocess.Popen[str]] = []

    def serve(self, command: list[str]) -> None:
        """Runs tasks on workers of this command until there are none left."""
        with contextlib.suppress(queue.Empty):
            while not self._stopped:
                jobs = self._tasks.get_nowait()
                try:
                    with self._started(command) as worker:
                        for job in jobs:
                            self._report(_ask(worker, job))
                except WorkerError as error:
                    self.failure = error
                    self.stop()

    def stop(self) -> None:
        """Ends all workers; their jobs stay without a result."""
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.terminate()

    def _report(self, result: Result) -> None:
        with self._lock:
            if not self._stopped:
                self._on_result(result)

    @contextlib.contextmanager
    def _started(self, command: list[str]) -> "Iterator[subprocess.Popen[str]]":
        with self._lock:
            worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._workers.append(worker)
            if self._stopped:
                worker.terminate()
        try:
            _await_start(worker)
            yield worker
        finally:
            with contextlib.suppress(BrokenPipeError):  # it died with a job in its pipe
                worker.communicate()
            with self._lock:
                self._workers.remove(worker)


def _await_start(worker: "subprocess.Popen[str]") -> None:
    """Takes a worker's first words. Raises WorkerError where it says that it cannot work."""
    answer = _pipes(worker)[1].readline()  # none from one that died: then so do its jobs
    if answer and "failed" in (words := json.loads(answer)):
        raise WorkerError(words["failed"])


def _pipes(worker: "subprocess.Popen[str]") -> tuple[IO[str], IO[str]]:
    if worker.stdin is None or worker.stdout is None:
        raise ValueError("The worker must be started with pipes for its input and output.")
    return worker.stdin, worker.stdout


def _ask(worker: "subprocess.Popen[str]", job: Job) -> Result:
    jobs, answers = _pipes(worker)
    try:
        jobs.write(json.dumps(job) + "\n")
        jobs.flush()
        answer = answers.readline()
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
