"""Blocks of pages that ask or that go on, run as they stand there: answers are typed, and messages sent to them."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.chat import ChatClient
from fastn_p2p_client.mail import MailClient
from tests.support.daemons import Daemon, eventually
from tests.support.run_pages import ROOT
from tests.support.terminals import Tty, on_terminal
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons, until_awaited

BLOCKS: Final = {
    name: text
    for page in sorted(ROOT.glob("docs/*.md"))
    for name, text in re.findall(
        r"^<!-- typed: ([^\n]*) -->\n```(?:sh|console|python)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL
    )
}
PASSPHRASE: Final = "correct horse battery staple"
AGAIN: Final = ("The same again", PASSPHRASE)


def commands_of(name: str) -> list[list[str]]:
    """Return the commands of a block, without the word fastn-p2p."""
    lines = [line.removeprefix("$ ") for line in BLOCKS[name].splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("fastn-p2p ")]
    return [line[1:] for line in words if line[1:] != ["daemon", "&"]]


def type_block(daemon: Daemon, name: str, *answers: tuple[str, str]) -> str:
    """Run the commands of a block one after the other; return what they have shown.

    Args:
        answers: questions in their order, and what is typed.
    """
    left, shown = list(answers), ""
    for command in commands_of(name):
        with on_terminal(daemon.env, *command, columns=200) as tty:
            while left and _is_asked(tty, left[0][0]):
                tty.type(f"{left.pop(0)[1]}\n")
            assert tty.ends() == 0, tty.raw.decode()
        shown += tty.raw.decode()
    assert not left
    return shown


def _is_asked(tty: Tty, question: str) -> bool:
    """Return whether a command has asked this; False if it ends without."""
    try:
        tty.until(lambda rows: any(question in row for row in rows), question)
    except AssertionError:
        return False
    return True


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoDaemons]:
    """alice and bob do not know each other, and commands run in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch, start_two_daemons(echo=False) as made:
        patch.chdir(tmp_path_factory.mktemp("typed"))
        yield made


async def run_program(daemon: Daemon, name: str, done: Callable[[], Awaitable[bool]]) -> None:
    """Run the program of a block, which does not end, until ``done``."""
    names: dict[str, Any] = {}
    indented = "".join(f"    {line}\n" for line in BLOCKS[name].splitlines())
    exec(f"async def program():\n{indented}", names)
    running = asyncio.create_task(names["program"]())
    try:
        await until_awaited(done, f"the program {name} has done its work")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_programs(
    daemons: TwoDaemons, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before ``test_pages``, which revokes alice."""
    for daemon, name, id52 in ((daemons.one, "bob", daemons.bob), (daemons.two, "alice", daemons.alice)):
        with daemon.client() as blocking:
            blocking.peers.add(id52, name)
        for protocol in ("Mail", "Chat"):
            add_binding(daemon, "alice" if name == "bob" else "bob", protocol)
    monkeypatch.setenv("FASTN_HOME", str(daemons.one.home.path))
    async with Client(daemons.two.home) as client:
        chat = await ChatClient(client, "bob").with_peer("alice")
        mail = MailClient("bob", client=client)

        async def has_mail() -> bool:
            return [each.id for each in (await mail.list()).mails] == ["report-7"]

        async def has_answered() -> bool:
            await chat.send("hi alice")
            return "hi alice" in capsys.readouterr().out

        await run_program(daemons.one, "follow mail", has_mail)
        await run_program(daemons.one, "follow a chat", has_answered)


def test_pages(daemons: TwoDaemons, tmp_path: Path) -> None:
    one, two = daemons.one, daemons.two
    with on_terminal(one.env, *commands_of("pair")[0], columns=200) as tty:
        tty.until(lambda rows: any(re.fullmatch(r"(\w+ ){3}\w+", row) for row in rows), "four words")
        words = next(row for row in tty.rows if re.fullmatch(r"(\w+ ){3}\w+", row)).split()
        (command,) = commands_of("pair with words")
        assert two.cli(*command[:1], *words, timeout=60).returncode == 0, "it has the words of the other one"
        assert len(command) == 1 + len(words)
        assert tty.ends() == 0

    type_block(one, "back up", ("Passphrase of the backup", PASSPHRASE), AGAIN)
    type_block(one, "rotate")
    type_block(one, "encrypt", ("assphrase", PASSPHRASE), AGAIN)
    assert "unlocked" in type_block(one, "lock and unlock", ("assphrase", PASSPHRASE))

    other = Daemon(tmp_path / "other", tmp_path / "hosts")
    try:
        other.start()
        type_block(other, "restore", ("assphrase", PASSPHRASE))
        assert [each.name for each in other.status().identities] == ["alice"]
    finally:
        other.clean_up()

    assert two.cli("peer", "rename", "alice", "ally").returncode == 0
    type_block(one, "revoke", ("Type alice to confirm", "alice"))
    successor = next(each.id52 for each in one.status().identities if each.name == "alice2")
    eventually(lambda: "revoked" in two.cli("peer", "list", "--json").stdout, "bob's daemon has heard of it")
    type_block(two, "accept a successor")
    assert successor in [each["id52"] for each in json.loads(two.cli("peer", "list", "--json").stdout)]


def test_every_block_that_is_typed_is_run() -> None:
    source = Path(__file__).read_text()
    assert {name for name in BLOCKS if f'"{name}"' not in source} == set()
    assert len(BLOCKS) == 11
