"""Programs that fork: each process gets its own answers, the parent goes on, and the child gets clients of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support.daemons import Daemon, eventually
from tests.support.processes import child
from tests.support.two_daemons import TwoDaemons, binding_of

pytestmark = [pytest.mark.both_transports, pytest.mark.usefixtures("transport")]

BEGIN = """
import asyncio, gc, multiprocessing, os, sys, threading, time
import uvloop
import fastn_p2p_client
from fastn_p2p_client import Client, UsedElsewhere, listen, sync
import fastn_p2p_client.mail.sync
peer, me = os.environ["PEER"], os.environ["ME"]

def refused(action):
    try:
        action()
    except UsedElsewhere as error:
        assert str(os.getppid()) in str(error) and "fork" in str(error), error
    else:
        raise AssertionError("it was not refused")

def in_child(work):
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == 0, process.exitcode

async def echo(client, word):
    reply = await client.call("alice", peer, "Echo", request={"message": word}, timeout=30)
    assert reply["echoed"] == "Echo: " + word, (word, reply)
"""


def assert_runs(daemons: TwoDaemons, source: str) -> None:
    """Run a program as alice; it must end well, within 30 seconds."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", BEGIN + source],
        env={**daemons.one.env, "PEER": daemons.bob, "ME": daemons.alice},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_client_is_refused_in_a_child_and_its_parent_goes_on(daemons: TwoDaemons, loop: str) -> None:
    assert_runs(
        daemons,
        f"run = {loop}.run"
        + """
client = Client()

def child():
    refused(lambda: asyncio.run(echo(client, "the child's")))
    refused(lambda: run(echo(client, "the child's")))
    refused(lambda: asyncio.run(client.control(fastn_p2p_client.ipc.messages.GetStatus())))
    refused(lambda: asyncio.run(client.connect("alice", peer, "Trial")))
    refused(lambda: asyncio.run(client.wait_until_online("alice", peer, timeout=1)))
    refused(lambda: asyncio.run(client.start()))
    run(echo(fastn_p2p_client, "of the module"))
    client.close()
    run(echo(client, "closed, and opened anew"))
    gc.collect()

async def main():
    async with client:
        await echo(client, "before")
        calls = [asyncio.create_task(echo(client, f"meanwhile {number}")) for number in range(20)]
        await asyncio.sleep(0)
        in_child(child)
        await asyncio.gather(*calls)
        for number in range(20):
            await echo(client, f"after {number}")

run(main())
""",
    )


def test_a_child_that_leaves_its_parent_s_loop_by_an_exception_does_not_disturb_it(daemons: TwoDaemons) -> None:
    assert_runs(
        daemons,
        """
async def main():
    async with Client() as client, await client.connect("alice", peer, "Trial", initial={"do": "echo"}) as session:
        await echo(client, "before")
        await echo(fastn_p2p_client, "before")
        await session.write(b"before")
        if not (pid := os.fork()):
            for action in (echo(client, "the child's"), session.read(), session.write(b"the child's"), session.close()):
                try:
                    await action
                except UsedElsewhere:
                    continue
                os._exit(1)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        await echo(client, "after")
        await echo(fastn_p2p_client, "after")
        await session.write(b", after")
        await session.send_eof()
        assert b"".join([part async for part in session]) == b"before, after"

asyncio.run(main())
""",
    )


def test_blocking_clients_are_refused_in_a_child_and_the_module_s_functions_work(daemons: TwoDaemons) -> None:
    assert_runs(
        daemons,
        """
def blocking(client, word):
    reply = client.call("alice", peer, "Echo", request={"message": word}, timeout=30)
    assert reply["echoed"] == "Echo: " + word, (word, reply)

client, mail = sync.Client(), fastn_p2p_client.mail.sync.MailClient("alice")
with client:
    blocking(client, "before")
    blocking(sync, "before")
    session = client.connect("alice", peer, "Trial", initial={"do": "echo"})

    def child():
        refused(lambda: blocking(client, "the child's"))
        for use in (session.read, session.close, session.reset, session.send_eof, lambda: session.write(b"the child's"),
                    lambda: session.copy_to(open(os.devnull, "wb")), lambda: session.copy_from(open(os.devnull, "rb"))):
            refused(use)
        blocking(sync, "of the module")
        with sync.connect("alice", peer, "Trial", initial={"do": "echo"}) as other:
            other.write(b"its own")
            other.send_eof()
            assert b"".join(other) == b"its own"
        with sync.Client() as mine:
            blocking(mine, "its own")
        client.close()

    in_child(child)
    threads = [threading.Thread(target=in_child, args=(child,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(50):
        blocking(client, f"meanwhile {number}")
        blocking(sync, f"meanwhile {number}")
    for thread in threads:
        thread.join()
    session.write(b"the parent's")
    session.send_eof()
    assert b"".join(session) == b"the parent's"
    session.close()
""",
    )


def test_a_server_continues_although_a_forked_child_uses_it(daemons: TwoDaemons) -> None:
    assert_runs(
        daemons,
        """
async def main():
    server = listen("alice")

    @server.handle_requests("Forks", access="everyone")
    async def answer(word: str) -> str:
        return word + ", " + str(os.getpid())

    def child():
        refused(lambda: asyncio.run(server.serve()))
        server.close()
        gc.collect()

    serving = asyncio.create_task(server.serve())
    await server.ready.wait()
    in_child(child)
    async with Client() as client:
        assert await client.call("alice", me, "Forks", request="who?") == f"who?, {os.getpid()}"
    server.close()
    await serving

asyncio.run(main())
""",
    )


def test_a_child_does_not_stand_in_for_a_parent_that_has_ended(daemons: TwoDaemons) -> None:
    source = (
        BEGIN
        + """
async def main():
    server = listen("alice")

    @server.handle_requests("Orphans")
    async def answer(word: str) -> str:
        return word

    serving = asyncio.create_task(server.serve())
    await server.ready.wait()
    if not os.fork():
        while True:
            time.sleep(60)
    print("forked", flush=True)
    await serving

asyncio.run(main())
"""
    )
    with child(
        subprocess.Popen(
            [sys.executable, "-c", source],
            env={**daemons.one.env, "PEER": daemons.bob, "ME": daemons.alice},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "forked\n"
            assert binding_of(daemons.one, "alice", "Orphans").programs == 1
            parent.kill()
            eventually(lambda: not serves(daemons.one, "Orphans"), "the daemon notices that the parent has ended")
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def serves(daemon: Daemon, protocol: str) -> bool:
    bindings = [binding for identity in daemon.status().identities for binding in identity.bindings]
    return any(binding.protocol == protocol and binding.programs for binding in bindings)
