"""The allocator's settings for training: freed memory stays, and what is only reserved takes none."""

import subprocess
import sys

import pytest

from tests.support.cli import REPO

PROGRAM = """
import ctypes, resource
from harness.training.host_memory import retain_freed_memory

def usage():
    return resource.getrusage(resource.RUSAGE_SELF)

before = usage().ru_maxrss
retain_freed_memory()
reserved = usage().ru_maxrss - before
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
libc.free.argtypes = (ctypes.c_void_p,)
faults = []
for _ in range(2):
    began = usage().ru_minflt
    block = libc.malloc(64 << 20)
    libc.memset(block, 1, 64 << 20)
    libc.free(block)
    faults.append(usage().ru_minflt - began)
print(reserved, *faults)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sets glibc's allocator")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPO, capture_output=True, text=True, check=True)
    reserved_kb, first, again = map(int, result.stdout.split())
    assert reserved_kb < 10_000
    assert first > again and again < 10
