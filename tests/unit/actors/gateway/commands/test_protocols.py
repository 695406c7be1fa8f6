"""The list of installed protocols survives broken protocols."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p.cli.protocol_list import config_rows, format_protocol
from fastn_p2p_actors.gateway import one_shot_workers
from fastn_p2p_actors.gateway.commands.protocols import describe_installed
from fastn_p2p_actors.gateway.one_shot_workers import OneShotWorkers
from fastn_p2p_actors.gateway.worker_programs import WorkerPrograms
from fastn_p2p_actors.identity.one_shot_worker import DescribeProtocol, ProtocolDescription, WorkerLimits
from fastn_p2p_client.errors import HandlerFailed
from fastn_p2p_client.ipc.messages import ProtocolInfo

PACKAGES = {
    "one": """
import msgspec
from fastn_p2p_client.protocol import Protocol, request
class Good(Protocol):
    '''Does good. Rests.

    More.'''
    @request
    async def do(self, request: int) -> int: return request
class Same(Protocol): pass
""",
    "two": """
from fastn_p2p_client.protocol import Protocol
class Same(Protocol): pass
class NoProtocol: pass
""",
    "leaving": "import os; os._exit(4)",
    "eating": "eaten = [bytearray(1 << 24) for _ in range(1 << 20)]",
    "forking": """
import os, time
if os.fork() == 0:
    time.sleep(60)
from one import Good
""",
    "loud": "print('nonsense on standard output'); from one import Good",
}
ENTRIES = {
    "one": "Good = one:Good\nSame = one:Same",
    "two": "Same = two:Same\nNothing = two:NoProtocol\nMissing = two:Missing\nbad-name = two:Same",
    "leaving": "Leaving = leaving:Good",
    "eating": "Eating = eating:Good",
    "forking": "Forking = forking:Good",
    "loud": "Loud = loud:Good",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], ProtocolInfo]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield listed(tmp_path_factory.mktemp("packages"), monkeypatch)


def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], ProtocolInfo]:
    for name, text in PACKAGES.items():
        (tmp_path / f"{name}.py").write_text(text)
        metadata = tmp_path / f"{name}-1.5.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (metadata / "entry_points.txt").write_text(f"[fastn_p2p.protocols]\n{ENTRIES[name]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    workers = OneShotWorkers(WorkerPrograms(), WorkerLimits(256 * 1024 * 1024, sandbox=False))
    protocols = asyncio.run(describe_installed(workers)).protocols
    assert [info.name for info in protocols] == sorted(info.name for info in protocols)
    return {(info.name, info.code): info for info in protocols}


def test_each_is_listed_with_its_description_or_its_problem(found: dict[tuple[str, str], ProtocolInfo]) -> None:
    good = found["Good", "one:Good"]
    assert (good.description, good.requests, good.streams, good.public) == ("Does good. Rests.", True, False, False)
    assert (good.distribution, good.version, good.problem) == ("one", "1.5", "")
    assert found["Loud", "loud:Good"].problem == ""
    assert found["Forking", "forking:Good"].problem == ""
    problems = {
        ("Leaving", "leaving:Good"): "ended with exit code 4",
        ("Eating", "eating:Good"): "MemoryError",
        ("Nothing", "two:NoProtocol"): "is not a subclass of",
        ("Missing", "two:Missing"): "has no attribute 'Missing'",
        ("bad-name", "two:Same"): "it starts with a letter, then letters and digits",
    }
    for key, words in problems.items():
        assert words in found[key].problem, key
    assert found["Echo", "fastn_p2p.protocols.echo:Echo"].config_schema


def test_two_protocols_with_the_same_name_hide_one(found: dict[tuple[str, str], ProtocolInfo]) -> None:
    same = [info for info in found.values() if info.name == "Same"]
    assert sorted(bool(info.problem) for info in same) == [False, True]
    (hidden,) = (info for info in same if info.problem)
    (other,) = (info for info in same if not info.problem)
    assert hidden.problem == f"hidden by the protocol of the same name of {other.distribution} 1.5"


async def test_a_process_that_has_ended_before_it_is_asked_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """For instance a worker that the kernel killed while the event loop was busy."""
    start = asyncio.create_subprocess_exec

    async def started_and_ended(*_: str, **options: Any) -> asyncio.subprocess.Process:
        process = await start(sys.executable, "-c", "raise SystemExit(7)", **options)
        assert process.stdin is not None
        await process.stdin.wait_closed()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started_and_ended)
    with pytest.raises(HandlerFailed, match="ended with exit code 7"):
        await ask_in_a_program()


HOLDS_OUTPUT = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"], start_new_session=True)
"""


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", HOLDS_OUTPUT], ids=["hanging", "ended"])
async def test_a_worker_that_takes_too_long_is_killed_once(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Once it has ended, its number may belong to a process group of others."""
    start, kill, killed = asyncio.create_subprocess_exec, os.killpg, list[int]()
    started: list[asyncio.subprocess.Process] = []

    async def start_other(*_: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(await start(sys.executable, "-c", code, **options))
        return started[0]

    def note(group: int, number: int) -> None:
        killed.append(group)
        kill(group, number)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_other)
    monkeypatch.setattr(os, "killpg", note)
    monkeypatch.setattr(one_shot_workers, "WORKER_TIMEOUT", 1)
    with pytest.raises(HandlerFailed, match="took longer than 1 s"):
        await ask_in_a_program()
    assert len(killed) == 1
    started[0]._transport.close()  # type: ignore[attr-defined]
    for reading in asyncio.all_tasks() - {asyncio.current_task()}:
        await reading


async def ask_in_a_program() -> None:
    workers = OneShotWorkers(WorkerPrograms(), WorkerLimits())
    await workers.run(DescribeProtocol("Good", "one:Good"), "alice", ProtocolDescription)


class Inner(msgspec.Struct):
    deep: int = 1


class Wide(msgspec.Struct):
    must: str
    inner: Inner
    several: list[Inner] = []
    either: int | None = None


def test_a_config_is_shown_as_a_table() -> None:
    schema = msgspec.json.schema(Wide)
    assert config_rows(schema) == [
        ("must", "string", "required", ""),
        ("inner", "Inner", "required", ""),
        ("several", "list of Inner", "default []", ""),
        ("either", "integer or null", "default null", ""),
    ]
    info = ProtocolInfo(
        name="Wide", code="x:Wide", distribution="x", version="1", problem="", streams=True, config_schema=schema
    )
    assert format_protocol(info).splitlines()[1:3] == [
        "    x 1 (x:Wide); takes streams; default access: peers",
        "      must     string           required",
    ]
