"""Memory of a session: what the program's heap does with the chunks that it has read."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_READER = """
import resource
from fastn_p2p_client.session.memory_request import keep_freed_chunks

memory = memoryview(bytearray(256 * 1024))
sizes = [262_144, 200_000, 262_144, 150_000, 131_072, 262_144]

def faults_of_reads():
    chunk, before = b"", resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for turn in range(1200):
        chunk = bytes(memory[: sizes[turn % len(sizes)]])
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of_reads()
before = faults_of_reads()
keep_freed_chunks()
faults_of_reads()
print(before, faults_of_reads())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep freed memory, or never do")
def test_reading_chunks_of_different_sizes_needs_no_new_pages() -> None:
    found = subprocess.run([sys.executable, "-c", _READER], capture_output=True, text=True, check=True, timeout=60)
    before, after = map(int, found.stdout.split())
    assert before > 1000
    assert after < 10
