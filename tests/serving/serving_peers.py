"""Published packages that our wire format must agree with, each in a virtual environment of its own."""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence

import pytest

from openpi.serving import published

OPENPI = published.OPENPI
POSITRONIC = ("positronic-model-server==0.3.1", "websockets")


def interpreter(name: str, requirements: Sequence[str]) -> str:
    """Python of the environment `name`; skips the test where it cannot be installed."""
    try:
        return str(published.interpreter(name, requirements))
    except OSError as error:
        pytest.skip(str(error))


def run(python: str, script: str, *arguments: str) -> str:
    """Output of a script that ends by itself."""
    done = subprocess.run([python, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def running(python: str, script: str, *arguments: str) -> Iterator[None]:
    """A script that runs until the block ends; the block begins once it has printed a line."""
    process = subprocess.Popen([python, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), f"the peer ended with status {process.wait()}"
        yield
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
