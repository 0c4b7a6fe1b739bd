import os
import signal
import subprocess
import sys

import psutil
import pytest

from openpi_runtime import ties

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does it")
PARENT = """
import subprocess, sys
from openpi_runtime import ties
subprocess.Popen(ties.tied(["sh", "-c", "echo $$; exec sleep 60"]))
sys.stdin.read()
"""


def test_a_tied_process_ends_with_one_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs([child], timeout=15)[1]


def test_it_is_the_command_itself_with_its_arguments_and_surroundings() -> None:
    script = "import os, sys; print(os.getpid(), os.environ['GIVEN'], *sys.argv[1:]); sys.exit(3)"
    command = ties.tied([sys.executable, "-c", script, "one two", "-S"])
    process = subprocess.Popen(command, env=os.environ | {"GIVEN": "yes"}, stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0] == f"{process.pid} yes one two -S\n"
    assert process.returncode == 3


def test_it_does_not_start_where_the_parent_has_ended_already() -> None:
    command = ties.tied(["echo", "started"])
    command[command.index(str(os.getpid()))] = str(os.getppid())
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")
