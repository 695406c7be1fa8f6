"""Heap of the fork server: code of children close together, no gaps, and a rehearsal that leaves no traces.

Each test has an interpreter of its own, because it rearranges all of the heap.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


def run(code: str, **environment: str) -> Any:
    """Run ``code`` in a new interpreter, and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


GAPS = """
import json
from fastn_p2p_supervisor import fork_heap
failures = []
for size in (48, 112, 512, 3000, 20000):
    many = [bytes(size - 33) for _ in range(4000)]
    pages = {id(each) // 4096 for each in many}
    kept = many[::2]
    del many
    fork_heap.fill()
    new = [bytes(size - 33) for _ in range(1000)]
    inside = sum(id(each) // 4096 in pages for each in new)
    if inside > 50:
        failures.append((size, inside))
print(json.dumps(failures))
"""


def test_new_objects_do_not_go_between_old_ones() -> None:
    assert run(GAPS) == []


CODE = """
import gc, json, sys
from types import FunctionType
import asyncio, fastn_p2p_client.client, fastn_p2p_client.names as names
from fastn_p2p_supervisor import fork_heap

def outer():
    return [each * 2 for each in (lambda: range(3))()]

def other():
    return "other"

def pages(functions):
    return len({id(each.__code__) // 4096 for each in functions})

some = [each for each in gc.get_objects() if isinstance(each, FunctionType) and "<" not in each.__qualname__][::12]
before = outer.__code__, other.__code__, pages(some)
with fork_heap.CodeRecorder() as recorder:
    outer()
recorder.add(each.__code__ for each in some)
fork_heap.arrange(recorder.codes)
print(json.dumps([
    outer(), names.check_name("alice", "an identity"), outer.__code__ is before[0], other.__code__ is before[1],
    before[2] / pages(some), len(recorder.codes),
]))
"""


def test_code_that_has_run_is_copied_to_one_place_and_works_as_before() -> None:
    result, name, is_old, is_left, fewer, left = run(CODE)
    assert (result, name) == ([0, 2, 4], "alice")
    assert not is_old
    assert is_left
    assert fewer > 2, "times fewer pages"
    assert left == 0


REHEARSAL = """
import asyncio, json, logging, os, signal, sys, threading
from fastn_p2p_supervisor import fork_server_preload

fork_server_preload.MEMORY_DIRECTORY = os.environ.get("IN_MEMORY", "/dev/shm")
descriptors = sorted(os.listdir("/proc/self/fd"))
handlers = [signal.getsignal(number) for number in range(1, 32)]
fork_server_preload.load()
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "modules": sorted(sys.modules),
    "log handlers": len(logging.getLogger().handlers),
    "loop": asyncio.get_event_loop_policy()._local._loop is not None,
    "signals": handlers == [signal.getsignal(number) for number in range(1, 32)],
    "descriptors": len(os.listdir("/proc/self/fd")) - len(descriptors),
    "umask": os.umask(0o22),
}))
"""


@pytest.mark.parametrize("variables", [("IN_MEMORY",), ("IN_MEMORY", "TMPDIR")], ids=["in memory", "on a disk"])
def test_the_rehearsal_loads_what_children_need_and_leaves_nothing_behind(variables: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        where = {name: place if name == variables[-1] else f"{place}/there is none" for name in variables}
        found = run(REHEARSAL, **where)
        assert list(Path(place).iterdir()) == []
    assert found["threads"] == 1
    assert "fastn_p2p.protocols.echo" in found["modules"], "an identity has answered a call"
    assert {"iroh", "nacl.bindings", "typer", "rich"}.isdisjoint(found["modules"])
    assert found["log handlers"] == 0
    assert found["loop"] is False
    assert found["signals"] is True
    assert found["descriptors"] <= 4  # libuv's pipe for signals, which each child makes anew


def test_a_rehearsal_that_fails_leaves_the_fork_server_as_useful() -> None:
    broken = "import fastn_p2p_actors.identity.rehearsal as it; it.rehearse = None"
    found = run(f"{broken}{REHEARSAL}")
    assert found["threads"] == 1
    assert "fastn_p2p_actors.identity" in found["modules"]
    assert "fastn_p2p.protocols.echo" not in found["modules"]
