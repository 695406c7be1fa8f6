"""Programs that are expected after a restart of the network process, with real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p_actors.network.serving import expected_programs
from fastn_p2p_actors.network.serving.expected_programs import ExpectedPrograms, Program
from tests.support.processes import child

SHOP = ("bob", "Shop", "default")
ME = Program(os.getpid(), *SHOP)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "programs.json"


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    with child(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)) as process:
        yield process
        process.kill()


def earlier(path: Path, *programs: Program, start: str = "") -> None:
    """Write the file of a network process that has ended while these programs served."""
    before = ExpectedPrograms(path, tuple, start)
    before.update(programs)
    before.close()
    before.update([])  # their connections end with it


async def test_expects_a_program_until_it_serves_again(path: Path) -> None:
    earlier(path, ME)
    back = ExpectedPrograms(path, tuple)
    assert back.is_expected(*SHOP)
    assert not back.is_expected("bob", "Shop", "another")
    turns: list[bool] = []
    back.retry_later(lambda: turns.append(back.is_expected(*SHOP)))
    back.update([Program(ME.pid, "bob", "Other", "default")])
    assert turns == []
    back.update([ME])
    assert turns == [False]
    back.close()


async def test_expects_every_connection_of_a_process(path: Path) -> None:
    earlier(path, ME, ME)
    back = ExpectedPrograms(path, tuple)
    back.update([ME])
    assert back.is_expected(*SHOP)
    back.update([ME, ME])
    assert not back.is_expected(*SHOP)
    back.close()


async def test_lists_a_program_before_it_gets_a_retryable_call(path: Path) -> None:
    """Other changes that come together are written together, a moment later."""
    serving: list[Program] = []
    now = ExpectedPrograms(path, lambda: serving)
    for _ in range(2):
        serving.append(ME)
        now.changed()
    now.note(ME, 2)
    now.close()
    back = ExpectedPrograms(path, tuple)
    back.update([ME])
    assert back.is_expected(*SHOP), "the second one is not back"
    back.update([ME, ME])
    assert not back.is_expected(*SHOP)
    back.close()


async def test_keeps_missing_programs_over_a_second_restart(path: Path) -> None:
    earlier(path, ME, ME)
    between = ExpectedPrograms(path, lambda: [ME])
    between.changed()
    between.changed()
    between.note(ME, 1)
    between.close()
    back = ExpectedPrograms(path, tuple)
    back.update([ME])
    assert back.is_expected(*SHOP)
    back.close()


async def test_does_not_expect_a_process_that_has_ended(path: Path, other: subprocess.Popen[bytes]) -> None:
    earlier(path, ME, Program(other.pid, *SHOP))
    back = ExpectedPrograms(path, tuple)
    back.update([ME])
    assert back.is_expected(*SHOP)
    other.kill()
    other.wait()
    assert not back.is_expected(*SHOP)
    back.close()


async def test_does_not_take_another_process_with_the_same_pid_for_the_program(path: Path) -> None:
    earlier(path, ME)
    known = json.loads(path.read_bytes())  # one line
    known[1] += 1
    path.write_text(json.dumps(known))
    back = ExpectedPrograms(path, tuple)
    assert not back.is_expected(*SHOP)
    back.close()


async def test_stops_expecting_after_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier(path, ME)
    monkeypatch.setattr(expected_programs, "_WAIT", 0.0)
    back = ExpectedPrograms(path, tuple)
    assert not back.is_expected(*SHOP)
    back.close()


async def test_keeps_the_file_as_long_as_programs_serve(path: Path) -> None:
    now = ExpectedPrograms(path, tuple)
    now.update([ME])
    assert path.exists()
    now.update([])
    assert list(path.parent.iterdir()) == []
    now.close()


@pytest.mark.parametrize("content", [b"", b"[", b"[1]", b'[["x"]]', b"\xff"])
async def test_ignores_a_damaged_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    back = ExpectedPrograms(path, tuple)
    assert not back.is_expected(*SHOP)
    back.close()


async def test_closing_writes_a_change_that_waits(path: Path) -> None:
    """The last program that served has ended just before: nothing is expected."""
    serving = [ME]
    before = ExpectedPrograms(path, lambda: serving)
    before.changed()
    assert path.exists()
    serving.clear()
    before.changed()
    before.close()
    assert not path.exists()


async def test_knows_whether_every_program_of_an_earlier_start_serves_again(
    path: Path, other: subprocess.Popen[bytes]
) -> None:
    another = Program(other.pid, *SHOP)
    earlier(path, ME, another, start="first")
    back = ExpectedPrograms(path, tuple, "second")
    back.update([ME])
    assert back.may_have_lost(*SHOP, "first"), "one of them is missing"
    back.update([ME, another])
    assert not back.may_have_lost(*SHOP, "first")
    assert not back.may_have_lost(*SHOP, ""), "all of every start are there"
    assert back.may_have_lost(*SHOP, "zeroth"), "nothing is known of that start"
    assert back.may_have_lost("bob", "Shop", "another", "first"), "nothing is known of that binding"
    back.close()


async def test_a_program_that_ended_with_the_daemon_may_have_executed_a_call(
    path: Path, other: subprocess.Popen[bytes]
) -> None:
    earlier(path, ME, Program(other.pid, *SHOP), start="first")
    other.kill()
    other.wait()
    back = ExpectedPrograms(path, tuple, "second")
    back.update([ME])
    assert not back.is_expected(*SHOP)
    assert back.may_have_lost(*SHOP, "first")
    back.close()
    again = ExpectedPrograms(path, tuple, "second")
    again.update([ME])
    assert again.may_have_lost(*SHOP, "first")
    assert again.may_have_lost(*SHOP, ""), "the unknown start may be the first"
    again.close()


async def test_knows_earlier_starts_after_the_next_ones(path: Path) -> None:
    """The network process and the daemon may be restarted several times while a call is retried."""
    earlier(path, ME, start="first")
    for start in ("second", "second", "third"):
        back = ExpectedPrograms(path, tuple, start)
        assert back.may_have_lost(*SHOP, "first"), "it has not registered yet"
        back.update([ME])
        assert not back.may_have_lost(*SHOP, "first")
        assert not back.may_have_lost(*SHOP, "")
        back.close()


async def test_a_program_that_does_not_come_back_in_time_may_have_executed_a_call(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier(path, ME, start="first")
    monkeypatch.setattr(expected_programs, "_WAIT", 0.0)
    back = ExpectedPrograms(path, tuple, "second")
    assert not back.is_expected(*SHOP)
    back.update([ME])
    assert back.may_have_lost(*SHOP, "first")
    back.close()
