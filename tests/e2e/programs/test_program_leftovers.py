"""Programs that close nothing: what they leave is given back, and a warning names the place."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.daemons import eventually
from tests.support.sessions import sessions_in
from tests.support.two_daemons import TwoDaemons

BEGIN = """
import asyncio, gc, os, sys, threading, time, warnings, weakref
import uvloop
import fastn_p2p_client
import fastn_p2p_client.mail.sync
from fastn_p2p_client import Client, UsedElsewhere, listen, serve_all, sync
from fastn_p2p_client.mail import MailClient
peer = os.environ["PEER"]
new_loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

def files():
    return len(os.listdir("/proc/self/fd"))

def eventually(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "not within 60 s"
        time.sleep(0.005)

async def echo(client):
    assert (await client.call("alice", peer, "Echo", request={"message": "x"}, timeout=30))["echoed"] == "Echo: x"

def in_a_loop(work, new=asyncio.new_event_loop):
    loop = new()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()
"""


def assert_runs(daemons: TwoDaemons, source: str, *, abandons_tasks: bool = False) -> list[str]:
    """Run a program as alice, which must end well; its warnings of unclosed objects of ours, which name the place.

    Args:
        abandons_tasks: it closes an event loop in which tasks run; asyncio says so.
    """
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", BEGIN + source],
        env={**daemons.one.env, "PEER": daemons.bob},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert abandons_tasks or "Task was destroyed" not in done.stderr, done.stderr
    assert "unclosed transport" not in done.stderr, done.stderr
    return re.findall(r"ResourceWarning: unclosed <.* (?:made|opened) at (<string>:\d+)", done.stderr)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_loops_that_were_closed_leave_no_connection(daemons: TwoDaemons, loop: str) -> None:
    warned = assert_runs(
        daemons,
        f"new = new_loops[{loop!r}]"
        + """
in_a_loop(asyncio.sleep(0), new)  # libuv keeps some files of its own
before, loops = files(), weakref.WeakSet()
gc.set_threshold(50)  # collections at every moment, also between the end of a loop and that of its client
for _ in range(60):
    loop = new()
    loops.add(loop)
    loop.run_until_complete(echo(fastn_p2p_client))
    loop.close()
    assert files() < before + 15, files()
del loop
gc.collect()
assert files() <= before + 1 and len(loops) <= 1, (files(), len(loops))
""",
    )
    assert warned == []  # no program can close what the functions of the module share


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_client_of_each_loop_that_was_closed_is_released(daemons: TwoDaemons, loop: str) -> None:
    warned = assert_runs(
        daemons,
        f"new = new_loops[{loop!r}]"
        + """
before, kept = files(), []
for _ in range(30):
    kept.append(Client())
    in_a_loop(echo(kept[-1]), new)
    assert files() < before + 15, files()
try:
    in_a_loop(echo(kept[0]), new)
except UsedElsewhere as error:
    assert "has ended" in str(error), error
else:
    sys.exit("it was not refused")
for each in kept:
    each.close()
in_a_loop(echo(kept[0]), new)
kept[0].close()
""",
    )
    assert warned == []


def test_dropped_clients_are_closed_and_their_place_is_named(daemons: TwoDaemons) -> None:
    warned = assert_runs(
        daemons,
        """
before, threads = files(), threading.active_count()
async def main():
    for _ in range(30):
        await echo(Client())
        await asyncio.sleep(0)
        assert files() < before + 20, files()
asyncio.run(main())
for _ in range(30):
    sync.Client().call("alice", peer, "Echo", request={"message": "x"})
    assert files() < before + 40, files()
eventually(lambda: files() < before + 8)
assert threading.active_count() <= threads + 1
""",
    )
    assert len(warned) == 60
    begin = BEGIN.count("\n")
    assert warned == 30 * [f"<string>:{begin + 5}"] + 30 * [f"<string>:{begin + 10}"]


def test_dropped_mail_clients_are_closed(daemons: TwoDaemons) -> None:
    assert daemons.one.cli("add-protocol", "alice", "--protocol", "Mail").returncode == 0
    warned = assert_runs(
        daemons,
        """
before = files()
async def main():
    for _ in range(20):
        await MailClient("alice").list()
        await asyncio.sleep(0)
        assert files() < before + 20, files()
asyncio.run(main())
for _ in range(20):
    fastn_p2p_client.mail.sync.MailClient("alice").list()
eventually(lambda: files() < before + 8)
""",
    )
    assert len(warned) == 40


def test_a_dropped_session_ends_at_both_sides(daemons: TwoDaemons) -> None:
    warned = assert_runs(
        daemons,
        """
async def opened():
    session = await fastn_p2p_client.connect("alice", peer, "Trial", initial={"do": "hold"})
    await session.read()
async def main():
    for _ in range(20):
        await opened()
    async with Client() as client:
        while True:
            counts = await client.call("alice", peer, "Trial", request={"do": "counts"})
            if counts["ended"] == counts["begun"]:
                return
asyncio.run(main())
def blocking():
    sync.connect("alice", peer, "Trial", initial={"do": "hold"}).read()
for _ in range(20):
    blocking()
while (counts := sync.call("alice", peer, "Trial", request={"do": "counts"}))["ended"] != counts["begun"]:
    pass
""",
    )
    begin = BEGIN.count("\n")
    assert warned == 20 * [f"<string>:{begin + 3}"] + 20 * [f"<string>:{begin + 15}"]
    eventually(lambda: not any(sessions_in(each.status()) for each in (daemons.one, daemons.two)), "no session is left")


def test_a_session_outlives_references_to_its_client_and_to_its_tasks(daemons: TwoDaemons) -> None:
    assert_runs(
        daemons,
        """
results = []
async def converse(number):
    session = await Client().connect("alice", peer, "Trial", initial={"do": "echo"})
    async with session:
        for _ in range(5):
            await session.write(b"x")
            gc.collect()
            assert await session.read() == b"x"
    results.append(number)
async def main():
    for number in range(5):
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, converse(number))
    while len(results) < 5:
        await asyncio.sleep(0.01)
        gc.collect()
asyncio.run(main())
""",
    )


def test_an_object_of_another_loop_is_refused_before_anything_is_sent(daemons: TwoDaemons) -> None:
    assert_runs(
        daemons,
        """
def refused(work):
    try:
        in_a_loop(work)
    except UsedElsewhere as error:
        assert "event loop" in str(error), error
    else:
        raise AssertionError("it was not refused")

async def main():
    client = Client()
    await echo(client)
    session = await client.connect("alice", peer, "Trial", initial={"do": "echo"})
    await session.write(b"one")

    async def reset():
        session.reset()

    def other():
        for work in (echo(client), client.start(), client.connect("alice", peer, "Trial"), session.read(),
                     session.write(b"two"), session.send_eof(), session.close(), session.wait_sent(), reset()):
            refused(work)
        try:
            session.reset()
        except UsedElsewhere:
            pass
        else:
            raise AssertionError("it was not refused")

    await asyncio.to_thread(other)
    await session.send_eof()
    assert b"".join([part async for part in session]) == b"one"
    await session.close()
    await echo(client)
    await asyncio.to_thread(client.close)
    await asyncio.sleep(0)
    await echo(client)
    client.close()

asyncio.run(main())
""",
    )


def test_a_blocking_call_inside_its_own_event_loop_is_refused(daemons: TwoDaemons) -> None:
    assert_runs(
        daemons,
        """
from fastn_p2p_client.event_loop_thread import submit

async def inside():
    sync.call("alice", peer, "Echo", request={"message": "x"})

try:
    submit(inside()).result(60)
except UsedElsewhere as error:
    assert "async" in str(error), error
else:
    sys.exit("it was not refused")
""",
    )


def test_a_server_whose_loop_was_closed_serves_no_more(daemons: TwoDaemons) -> None:
    assert_runs(
        daemons,
        """
before = files()
async def begin(server):
    task = asyncio.get_running_loop().create_task(server.serve())
    await server.ready.wait()

for _ in range(20):
    for server in (listen("alice"), serve_all()):
        async def answer(word: str) -> str:
            return word
        server.handle_requests("Left", answer)
        in_a_loop(begin(server))
    del server
    gc.collect()
    assert files() < before + 15, files()
""",
        abandons_tasks=True,
    )
    eventually(
        lambda: not any(binding.programs for each in daemons.one.status().identities for binding in each.bindings),
        "no program serves",
    )
