import json
import signal
import subprocess
import sys
import time

import pytest

from openpi_sim.libero.benchmark import ResultLog, WorkerError, run_jobs, summarise

# Stands in for a worker: succeeds on even trials, dies when told to run trial 13, and hangs on 99.
FAKE_WORKER = """
import json, sys, time
print('{"ready": true}', flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if job["trial"] == 13:
        sys.exit(3)
    if job["trial"] == 99:
        time.sleep(1000)
    print(json.dumps(job | {"success": job["trial"] % 2 == 0, "steps": 10 * job["trial"]}), flush=True)
"""


def run_fake(jobs, workers):
    results = []
    run_jobs(jobs, [[sys.executable, "-c", FAKE_WORKER]] * workers, on_result=results.append)
    return results


@pytest.mark.parametrize("workers", [1, 3])
def test_every_job_is_answered_once(workers):
    jobs = [{"task": task, "trial": trial} for task in range(4) for trial in range(5)]
    answered = sorted((result["task"], result["trial"]) for result in run_fake(jobs, workers))
    assert answered == sorted((job["task"], job["trial"]) for job in jobs)


def test_a_dead_worker_fails_its_jobs_and_spares_the_next_task():
    results = run_fake([{"task": 0, "trial": 13}, {"task": 0, "trial": 2}, {"task": 1, "trial": 2}], workers=1)
    assert "exit status 3" in results[0]["error"]
    assert "error" in results[1]
    assert results[2] == {"task": 1, "trial": 2, "success": True, "steps": 20}


def test_a_worker_that_cannot_start_ends_the_run_with_its_words():
    fails = [sys.executable, "-c", """print('{"failed": "There is no stack."}')"""]
    hangs = [sys.executable, "-c", FAKE_WORKER]
    jobs = [{"task": task, "trial": 99} for task in range(3)]
    with pytest.raises(WorkerError, match=r"There is no stack\."):
        run_jobs(jobs, [hangs, fails], on_result=pytest.fail)


INTERRUPTED = """
import sys
from openpi_sim.libero.benchmark import run_jobs
jobs = [{"task": task, "trial": trial} for task in range(3) for trial in (2, 99, 4)]
run_jobs(jobs, [[sys.executable, "-c", sys.argv[1]]], on_result=lambda result: print(result, flush=True))
"""


def test_an_interrupted_run_ends_at_once_and_reports_nothing_more():
    runner = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, FAKE_WORKER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert "'trial': 2" in runner.stdout.readline()
    time.sleep(0.2)  # it hangs in the next one
    runner.send_signal(signal.SIGINT)
    said, error = runner.communicate(timeout=30)
    assert said == ""
    assert "KeyboardInterrupt" in error


def test_log_resumes_after_a_line_cut_short(tmp_path):
    path = tmp_path / "results.jsonl"
    log = ResultLog(path)
    log.add({"task": 0, "trial": 0, "success": True, "steps": 90})
    log.add({"task": 0, "trial": 1, "error": "gone"})
    with path.open("a") as file:
        file.write('{"task": 0, "tri')
    again = ResultLog(path)
    assert again.missing([{"task": 0, "trial": trial} for trial in range(3)]) == [
        {"task": 0, "trial": 1},
        {"task": 0, "trial": 2},
    ]


def test_result_added_after_a_line_cut_short_can_be_read(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"task": 0, "tri')
    ResultLog(path).add({"task": 0, "trial": 0, "success": True, "steps": 1})
    assert ResultLog(path).results == [{"task": 0, "trial": 0, "success": True, "steps": 1}]
    assert json.loads(path.read_text().splitlines()[-1])["success"]


def test_summary_counts_the_newest_result_and_errors_as_failures():
    results = [
        {"task": 0, "trial": 0, "error": "gone"},
        {"task": 0, "trial": 0, "success": True, "steps": 80},
        {"task": 0, "trial": 1, "success": False, "steps": 220},
        {"task": 3, "trial": 0, "error": "gone"},
    ]
    summary = summarise(results)
    assert summary["tasks"][0] == {"episodes": 2, "successes": 1, "errors": 0, "mean_steps": 150.0}
    assert summary["tasks"][3] == {"episodes": 1, "successes": 0, "errors": 1, "mean_steps": None}
    assert (summary["episodes"], summary["successes"], summary["success_rate"]) == (3, 1, 0.3333)
