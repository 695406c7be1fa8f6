"""Terminal output of every command is escaped, with a peer that puts control characters into every text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.cli.command_groups import COMMANDS, UNLISTED
from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p.protocols.files.framing import FrameStream
from fastn_p2p.protocols.files.messages import DirectoryPage, Entry, Skipped, WalkEntries
from fastn_p2p_client import Client, sync
from fastn_p2p_client.chat.client import ChatClient
from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.ipc.messages import AddPeer
from fastn_p2p_client.mail import Attachment
from fastn_p2p_client.mail.sync import MailClient
from fastn_p2p_client.session.session import Session
from tests.support.daemons import CLI, DEADLINE, eventually
from tests.support.terminals import Tty, on_terminal
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons

pytestmark = pytest.mark.asyncio_loop

TITLE = "\x1b]0;owned\x07"
EVIL = f"{TITLE}\x9b2J\x7f\u202etxt.exe\u2066\u200b\u200d\ufeff\xad\U000e0041\u2028\x85"
EVIL += "\rfake\nfastn-p2p: all is well\x1b[2A"
"""Every kind of what must not get there."""
HARMFUL: tuple[str, ...] = (
    "\x1b]",
    "\x07",
    "\x9b",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u200b",
    "\u200d",
    "\ufeff",
    "\xad",
    "\U000e0041",
)
HARMFUL += ("\u2028", "\x85", "\x1b[2A")


def assert_harmless(tty: Tty, *, lines: bool = False, shows: bool = True) -> None:
    """Assert that the output has no control character of ``EVIL``. ``lines``: a text of several lines was shown."""
    written = tty.raw.decode()
    assert not [each for each in HARMFUL if each in written]
    assert "owned" in written or not shows, "the peer's words are shown"
    assert "\rfake" not in written
    if not lines:
        assert "\nfastn-p2p: all is well" not in written.replace("\r", "")


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    with start_two_daemons() as made:
        for daemon, name in ((made.one, "alice"), (made.two, "bob")):
            add_binding(daemon, name, "Mail")
            add_binding(daemon, name, "Chat")
        for daemon, name, id52 in ((made.one, "bob", made.bob), (made.two, "alice", made.alice)):
            with daemon.client() as client:
                client.control(AddPeer(id52, name))
        with hostile_program(made):
            yield made


@contextlib.contextmanager
def hostile_program(daemons: TwoDaemons) -> Iterator[None]:
    """Bob's program: it answers, raises, streams and shares files."""
    server = sync.listen("bob", daemons.two.home)

    def answer(request: Any) -> Any:
        if request == "refuse":
            raise ApplicationError(EVIL[:60], EVIL, {"more": EVIL})
        if request == "crash":
            raise RuntimeError(EVIL)
        return {"text": EVIL, EVIL: [EVIL]}

    async def stream(session: Session) -> None:
        await session.write(f"{EVIL}\r\nlast line".encode() + b"\x9b\xff")

    def refuse(request: Any) -> Any:
        raise ApplicationError("Unreadable", EVIL)

    async def walk(session: Session, order: Any) -> None:
        await FrameStream(session).send_message(WalkEntries([Entry(EVIL, "file")], [Skipped(EVIL, EVIL)]))

    def offer_names(request: Any) -> Any:
        return DirectoryPage([Entry(EVIL, "file"), Entry("owned zero\u200bwidth", "file", mtime_ns=1 << 61)], False, 1)

    server.handle_requests("Hostile", answer)
    server.handle_streams("Hostile", stream)
    server.handle_requests("FileTransfer", refuse, instance="refusing")
    server.handle_requests("FileTransfer", offer_names, instance="naming")

    async def refuse_session(session: Session, order: Any) -> None:
        raise ApplicationError("Unreadable", EVIL)

    server.handle_streams("FileTransfer", walk, instance="naming")
    server.handle_streams("FileTransfer", refuse_session, instance="refusing")
    server.handle_requests("Mail", refuse, instance="refusing")
    server.handle_requests("Chat", refuse, instance="refusing")
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        assert server.ready.wait(60)
        yield
    finally:
        server.close()
        thread.join(60)


def assert_command_is_harmless(
    daemons: TwoDaemons, *arguments: str, code: int | None = 0, lines: bool = False, shows: bool = True
) -> str:
    """A command of alice's on a terminal; it ends by itself."""
    with on_terminal(daemons.one.env, *arguments, rows=60, columns=400) as tty:
        ended = tty.ends()
    assert_harmless(tty, lines=lines, shows=shows)
    assert code is None or ended == code, tty.raw.decode()
    return tty.raw.decode()


def test_call(daemons: TwoDaemons) -> None:
    words = assert_command_is_harmless(daemons, "call", "bob", "Hostile", "--data", '"reply"')
    assert json.loads(words) == {"text": EVIL, EVIL: [EVIL]}
    assert_command_is_harmless(daemons, "call", "bob", "Hostile", "--data", '"refuse"', code=1)
    piped = daemons.one.cli("call", "bob", "Hostile", "--data", '"reply"').stdout
    assert "\u202etxt.exe\u2066\u200b" in piped, "what is piped is exactly what came"


def test_stream(daemons: TwoDaemons) -> None:
    """Escapes on a terminal; every byte with --raw, and in a pipe."""
    sent = f"{EVIL}\r\nlast line".encode() + b"\x9b\xff"
    for option, shown in ((), b"\\x1b[2A\r\nlast line\\x9b\\xff"), (("--raw",), sent.replace(b"\n", b"\r\n")):
        with on_terminal(daemons.one.env, "stream", "bob", "Hostile", *option, rows=60, columns=400) as tty:
            tty.type("\x04")
            assert tty.ends() == 0
        assert tty.raw.endswith(shown)
        if not option:
            assert_harmless(tty, lines=True)
    piped = subprocess.run(
        [*CLI, "stream", "bob", "Hostile"],
        env=daemons.one.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
    )
    assert piped.stdout == sent


def test_mail(daemons: TwoDaemons) -> None:
    with MailClient("bob", home=daemons.two.home) as bob:
        bob.send("alice", EVIL, f"{EVIL}\n", [Attachment("zero\u200bwidth owned", b"")])
    with MailClient("alice", home=daemons.one.home) as alice:
        number = str(alice.list(wait=60).mails[-1].number)
        alice.send("bob", EVIL, "", instance="refusing")
        eventually(lambda: "owned" in alice.outbox().entries[0].reason, "the refusal is known")
    for command in (["list"], ["read", number], ["outbox"]):
        assert_command_is_harmless(daemons, "mail", *command, lines=command[0] == "read")
        read = json.loads(assert_command_is_harmless(daemons, "mail", *command, "--json"))
        assert EVIL in json.dumps(read, ensure_ascii=False).replace("\\n", "\n").replace("\\u001b", "\x1b") or read
    piped = daemons.one.cli("mail", "read", number).stdout
    assert piped.encode() == f"{EVIL}\n".replace("\r", "\n").encode(), "universal newlines of the test, else exactly"


async def test_chat(daemons: TwoDaemons) -> None:
    async with Client(daemons.two.home) as client:
        await (await ChatClient(client, "bob").with_peer("alice")).send(EVIL)
    await asyncio.to_thread(_assert_chat_is_harmless, daemons)


def _assert_chat_is_harmless(daemons: TwoDaemons) -> None:
    for arguments in ((), ("--json",)):
        with on_terminal(daemons.one.env, "chat", "bob", "--last", "5", *arguments, rows=60, columns=400) as tty:
            tty.until(lambda rows: any("owned" in row for row in rows), "the message")
            tty.type("\x04")
            assert tty.ends() == 0
        written = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", tty.raw.decode())  # the editor draws
        assert not [each for each in HARMFUL if each in written]


def test_files(daemons: TwoDaemons, tmp_path: Path) -> None:
    for arguments in (
        ("ls", "bob", "--instance", "refusing"),
        ("ls", "bob", "--instance", "naming"),
        ("ls", "bob", "--instance", "naming", "--json"),
        ("get", "bob", "any", "--instance", "refusing", "--to", str(tmp_path)),
        ("get", "bob", "/", "--instance", "naming", "--to", str(tmp_path)),
        ("put", "bob", __file__, "--instance", "refusing"),
    ):
        assert_command_is_harmless(daemons, "files", *arguments, code=None)


def test_arguments_that_come_from_elsewhere(daemons: TwoDaemons) -> None:
    """A script takes names from a file, or from a peer."""
    evil = EVIL.replace("\x85", "")
    for arguments in (
        ("ticket", evil),
        ("peer", "remove", evil),
        ("peer", "add", evil),
        ("peer", "add", daemons.bob, "--name", evil),
        (evil,),
        ("status", f"--{evil}"),
        ("mail", "read", evil),
        ("call", "bob", "Echo", "--data", evil),
        ("new-protocol", evil),
        ("daemon", "--network", evil),
    ):
        assert_command_is_harmless(daemons, *arguments, code=None, shows=False)


ELSEWHERE = {
    "daemon": "one line of its own, made plain",
    "create-identity": "the user's words, and errors as in test_arguments_that_come_from_elsewhere",
    "status": "tests/unit/cli/status/test_dashboard.py",
    "protocols": "tests/unit/cli/test_commands.py",
    "demo": "tests/unit/demo/test_demo.py",
}
ONLY_WORDS = (
    *("delete-identity", "list-identities", "add-protocol", "remove-protocol", "check", "reload", "start", "stop"),
    *(
        "new-protocol",
        "set-identity",
        "set-protocol",
        "worker-token",
        "identity-online",
        "identity-offline",
        "ticket",
        "forward",
    ),
    *("relay", "config", "ping", "explain", "netcheck", "access", "log", "pair", "invite", "replica", "vault"),
    *("backup", "transport", "health", "doctor", "bug-report", "service", "logs", "metrics", "expose", "open"),
    "schema",
    "completion",
)
ELSEWHERE |= dict.fromkeys(ONLY_WORDS, "nothing but say, put, put_json and table: tests/unit/client/test_plain_text.py")


def test_every_command_was_thought_of() -> None:
    """Each command names the test which shows that a peer cannot write to the terminal through it."""
    assert {*ELSEWHERE, "call", "stream", "chat", "mail", "files", "peer"} == {*COMMANDS, *UNLISTED} - {
        "identity",
        "protocol",
    }


WATCHING: tuple[tuple[str, ...], ...] = (
    ("status", "--watch"),
    ("status", "--watch", "--json"),
    ("logs", "--follow"),
    ("log", "audit", "--follow"),
    ("peer", "pending", "--watch"),
    ("peer", "pending", "--watch", "--json"),
)


@pytest.mark.parametrize("command", WATCHING, ids=" ".join)
@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "pipe"])
def test_a_watching_command_ends_with_its_reader(
    daemons: TwoDaemons, command: tuple[str, ...], is_terminal: bool
) -> None:
    """Also one that has nothing to write, and one that is no job of the terminal and so gets no SIGHUP."""
    ours, theirs = os.openpty() if is_terminal else os.pipe()
    try:
        process = subprocess.Popen(
            [*CLI, *command],
            env={**daemons.one.env, "TERM": "xterm"},
            stdin=theirs if is_terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
    finally:
        os.close(theirs)
    with process:
        if "pending" not in command:
            assert os.read(ours, 1)
        os.close(ours)
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == ExitCode.PIPE
    assert errors.decode() in ("", "No stranger was refused. Waiting for the first.\n")
