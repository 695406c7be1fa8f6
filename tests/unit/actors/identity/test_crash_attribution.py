"""Crashes are attributed to the binding whose code was running, by the next process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fastn_p2p_actors.identity.crash_attribution import (
    CRASH_LIMIT,
    HANG_LIMIT,
    WINDOW,
    AttributingRunner,
    CrashAttribution,
)

NOTES = ("Notes", "default")


def ended(path: Path, code: str) -> None:
    """Run this code of a binding in a process that ends with a crash."""
    program = f"""
import asyncio, os, signal
from pathlib import Path
from fastn_p2p_actors.identity.crash_attribution import CrashAttribution, AttributingRunner

async def main():
    attribution = CrashAttribution(Path({str(path)!r}), "", wall=lambda: 1100.0)
    attribution.watch_tasks(asyncio.get_running_loop())
    runner = AttributingRunner(attribution, {NOTES!r})
    async def run(): pass
{code}
    os._exit(1)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=False, timeout=100, stderr=subprocess.DEVNULL)


def after(path: Path, fault: str = "exit code 1", *, hung: bool = False, at: float = 1000.0) -> CrashAttribution:
    attributions: list[CrashAttribution] = []

    async def make() -> None:
        attributions.append(CrashAttribution(path, fault, hung=hung, wall=lambda: at))

    asyncio.run(make())
    return attributions[0]


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("    runner.step('its import', lambda: os._exit(1))", "its import"),
        (
            "    async def hook():\n        await asyncio.sleep(0)\n        os._exit(1)\n"
            "    await runner.function('on_activate', hook)()",
            "on_activate",
        ),
        (
            "    async def task():\n        await asyncio.sleep(0.01)\n        os.abort()\n"
            "    async def hook():\n        global kept\n        kept = asyncio.create_task(task())\n"
            "    await runner.function('on_activate', hook)()\n    await asyncio.sleep(5)",
            "on_activate",
        ),
        (
            "    async def handler(number, word):\n        os.kill(os.getpid(), signal.SIGSEGV)\n"
            "    await runner.function('a request', handler)(1, 'x')",
            "a request",
        ),
    ],
    ids=["import", "hook", "task", "handler"],
)
def test_crash_is_attributed_to_running_code(tmp_path: Path, code: str, place: str) -> None:
    path = tmp_path / "identity-alice"
    for number in range(1, CRASH_LIMIT):
        ended(path, code)
        assert after(path, at=1000.0 + number).crash_loop(NOTES, since=0) == []
    ended(path, code)
    crashes = after(path, at=1000.0 + CRASH_LIMIT).crash_loop(NOTES, since=0)
    assert len(crashes) == CRASH_LIMIT
    assert {(crash.protocol, crash.instance, crash.place, crash.ending) for crash in crashes} == {
        (*NOTES, place, "exit code 1")
    }


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("    async def hook():\n        await asyncio.sleep(0)\n    await runner.function('x', hook)()",
         "exit code 1"),
        ("    async def hook():\n        raise ValueError\n    try: await runner.function('x', hook)()\n"
         "    except ValueError: pass", "exit code 1"),
        ("    runner.step('its import', lambda: os._exit(1))", ""),
    ],
    ids=["code that has ended", "code that has raised", "killed by somebody else"],
)  # fmt: skip
def test_crashes_without_running_code_are_not_attributed(tmp_path: Path, code: str, fault: str) -> None:
    path = tmp_path / "identity-alice"
    for _ in range(CRASH_LIMIT + 1):
        ended(path, code)
        after(path, fault)
    assert after(path, "").crash_loop(NOTES, since=0) == []


def test_a_hang_counts_more_and_old_or_forgiven_crashes_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "identity-alice"
    code = "    runner.step('its import', lambda: os._exit(1))"
    for number in range(HANG_LIMIT):
        ended(path, code)
        after(path, "no heartbeat", hung=True, at=1000.0 + number)
    attribution = after(path, "", at=1010.0)
    assert len(attribution.crash_loop(NOTES, since=0)) == HANG_LIMIT
    assert attribution.crash_loop(NOTES, since=1000.0) == []  # its config was written between
    assert attribution.crash_loop(("Notes", "other"), since=0) == []
    assert len(after(path, "", at=1000.0 + WINDOW / 2).crash_loop(NOTES, since=0)) == HANG_LIMIT
    assert after(path, "", at=1000.0 + HANG_LIMIT + WINDOW).crash_loop(NOTES, since=0) == []


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x09\x00\x09\x00Notes/default\n", b"[]"])
def test_damaged_files_attribute_no_crash(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity-alice"
    for suffix in ("running", "crashes"):
        (tmp_path / f"identity-alice.{suffix}").write_bytes(content)
    assert after(path).crash_loop(NOTES, since=0) == []


def test_code_runs_where_the_marker_cannot_be_written(tmp_path: Path) -> None:
    attribution = after(tmp_path / "missing" / "identity-alice")
    assert AttributingRunner(attribution, NOTES).step("its import", lambda: 7) == 7


def in_watch(tmp_path: Path, scenario: Callable[[AttributingRunner], Any]) -> Any:
    async def main() -> Any:
        attribution = CrashAttribution(tmp_path / "identity-alice", "")
        attribution.watch_tasks(asyncio.get_running_loop())
        try:
            return await scenario(AttributingRunner(attribution, NOTES))
        finally:
            attribution.close()

    return uvloop.run(main())


def test_watched_code_behaves_as_if_it_were_not_watched(tmp_path: Path) -> None:
    async def scenario(runner: AttributingRunner) -> list[object]:
        seen: list[object] = []

        async def handler(number: int) -> int:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(10)
            except TimeoutError:
                seen.append("timed out")
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(asyncio.sleep(0, result)) for result in range(3)]
            seen.append([task.result() for task in tasks])
            seen.append(asyncio.current_task() is not None)
            return number + 1

        async def waiting() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        seen.append(await runner.function("a request", handler)(1))
        task = asyncio.ensure_future(runner.function("a request", waiting)())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return seen

    assert in_watch(tmp_path, scenario) == ["timed out", [0, 1, 2], True, 2, "cancelled"]
    assert list(tmp_path.iterdir()) == []


def test_an_exit_in_a_task_ends_the_task(tmp_path: Path) -> None:
    async def scenario(runner: AttributingRunner) -> str:
        async def leave() -> None:
            sys.exit(3)

        async def hook() -> asyncio.Task[None]:
            return asyncio.create_task(leave())

        task = await runner.function("on_activate", hook)()
        with pytest.raises(RuntimeError, match=r"SystemExit\(3\)") as raised:
            await task
        return str(raised.value)

    assert in_watch(tmp_path, scenario)
