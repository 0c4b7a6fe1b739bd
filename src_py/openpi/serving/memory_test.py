import subprocess
import sys

import pytest

# Bytes objects as large as an image, made and dropped; the page faults that this takes, in a fresh process.
SCRIPT = """
import resource, sys
from openpi.serving import memory
if sys.argv[1] == "keep":
    memory.keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    if _ == 10:
        before = faults()
    parts = [bytes(bytearray(b"x") * size) for size in (900_000, 500_000, 1_500_000)]
    del parts
print(faults() - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_memory_is_not_faulted_in_again():
    assert page_faults("keep") < 50 < page_faults("default")
