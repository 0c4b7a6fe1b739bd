"""A process of the LIBERO environment that runs the episodes it is told to.

Says on standard output whether it can work, {"ready": true} or {"failed": "why not"}. Then reads one JSON job a line
from standard input, {"task": 0, "trial": 3}, and answers each with one JSON line: {"task", "trial", "success", "steps",
"seconds", "video"}, or {"task", "trial", "error"}. Ends at end of input.
"""

import argparse
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

from openpi_sim.libero.benchmark import Job, Result
from openpi_sim.libero.episode import Actor, ChunkActor, ExpertActor, Outcome, run_episode
from openpi_sim.libero.suites import CONTROL_HZ, find_suite
from openpi_sim.libero.world import CAMERAS, Frame, LiberoWorld


class Worker:
    """Keeps the world of the newest task loaded, since loading takes longer than many an episode."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Takes the parsed command line, see `parse`."""
        self._options = options
        self._suite = find_suite(options.suite)
        self._make_actor = _actor_factory(options.server)
        self._world: LiberoWorld | None = None
        self._task = -1

    def run(self, job: Job) -> Outcome:
        """Runs one job."""
        world = self._load(job["task"])
        return run_episode(world, job["trial"], self._make_actor, max_steps=self._suite.max_steps)

    def _load(self, task: int) -> LiberoWorld:
        if self._world is None or task != self._task:
            if self._world is not None:
                self._world.close()
            cameras = CAMERAS if self._options.render else ()
            self._world = LiberoWorld(self._options.suite, task, cameras=cameras, seed=self._options.seed)
            self._task = task
        return self._world


def answer_jobs(start: Callable[[], Callable[[Job], Outcome]], videos: str) -> None:
    """Answers jobs until the input ends; any failure becomes an answer, so that it does not end a benchmark.

    LIBERO and robosuite print: their words go to standard error, so that the answers stay readable.

    Args:
        start: makes what runs one; its failure is told, and nothing else is.
        videos: folder for videos of failed episodes; empty: none.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        run = start()
    except Exception as error:
        print(json.dumps({"failed": str(error) or type(error).__name__}), file=answers, flush=True)
        return
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(run, json.loads(line), videos)), file=answers, flush=True)


def _answer(run: Callable[[Job], Outcome], job: Job, videos: str) -> Result:
    started = time.monotonic()
    try:
        outcome = run(job)
        video = _save_failure(job, outcome, videos)
    except Exception as error:
        return job | {"error": f"{type(error).__name__}: {error}"}
    seconds = round(time.monotonic() - started, 3)
    return job | {"success": outcome.success, "steps": outcome.steps, "seconds": seconds, "video": video}


def _save_failure(job: Job, outcome: Outcome, videos: str) -> str:
    if outcome.success or not outcome.frames or not videos:
        return ""
    path = pathlib.Path(videos, f"task{job['task']:02d}_trial{job['trial']:02d}.mp4")
    write_video(path, outcome)
    return str(path)


def write_video(path: pathlib.Path, outcome: Outcome) -> None:
    """Encodes the frames of an episode as H.264 at the control rate."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, _ = outcome.frames[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=int(CONTROL_HZ))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in outcome.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _actor_factory(server: str) -> Callable[[Frame, str], Actor]:
    if not server:
        return ExpertActor
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    host, _, port = server.rpartition(":")
    policy = WebsocketClientPolicy(host=host, port=int(port))
    return lambda frame, prompt: ChunkActor(policy, prompt)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line of a worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--server", default="", help="HOST:PORT of a policy server; empty: the scripted expert")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--videos", default="", help="folder for videos of failed episodes")
    parser.add_argument("--render", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(arguments)


def main() -> None:
    """Answers jobs until the input ends."""
    options = parse()
    answer_jobs(lambda: Worker(options).run, options.videos)


if __name__ == "__main__":
    main()
