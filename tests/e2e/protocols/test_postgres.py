"""Mail and Chat whose state is in PostgreSQL: commands, losses of the database, and a move from SQLite."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p_client.errors import StorageUnavailable
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.mail.sync import MailClient
from tests.support.daemons import Daemon, eventually
from tests.support.postgres_server import PASSWORD, PostgresServer
from tests.support.run_pages import ROOT
from tests.support.two_daemons import TwoDaemons, add_binding, binding_of, start_two_daemons

PAGE = (ROOT / "docs" / "postgres.md").read_text()


@pytest.fixture(scope="module")
def daemons(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoDaemons]:
    """alice has her mail in SQLite, and bob in PostgreSQL, for which he has a passfile."""
    passfile = tmp_path_factory.mktemp("secret") / "passfile"
    passfile.touch(0o600)
    passfile.write_text(f"127.0.0.1:{postgres.port}:bob:mailer:{PASSWORD}\n")
    postgres.execute("CREATE DATABASE bob OWNER mailer")
    with start_two_daemons(echo=False) as made:
        for daemon, name, id52 in ((made.one, "bob", made.bob), (made.two, "alice", made.alice)):
            with daemon.client() as client:
                client.control(m.AddPeer(id52, name))
        add_binding(made.one, "alice", "Mail")
        url = postgres.url("bob", "mailer", f"?passfile={passfile}")
        done = add(made.two, "bob", "Mail", url)
        assert done.returncode == 0, done.stderr
        yield made


def add(
    daemon: Daemon, identity: str, protocol: str, url: str, command: str = "add-protocol"
) -> subprocess.CompletedProcess[str]:
    return daemon.cli(command, identity, "--protocol", protocol, "--config", json.dumps({"store": url}), "--yes")


def state_of(daemon: Daemon, identity: str, protocol: str = "Mail") -> str:
    return binding_of(daemon, identity, protocol).state


def test_mail_arrives_in_postgresql_and_waits_while_it_is_away(
    daemons: TwoDaemons, postgres: PostgresServer, tmp_path: Path
) -> None:
    """Peers and the owner get a typed error that says to try again. Mail arrives once the server is back."""
    with MailClient("alice", home=daemons.one.home) as alice, MailClient("bob", home=daemons.two.home) as bob:
        alice.send("bob", "before", "x", id="before")
        eventually(lambda: alice.track("before").state == "delivered", "it has arrived")
        assert [each.subject for each in bob.list().mails] == ["before"]
        postgres.stop(signal.SIGKILL)
        try:
            eventually(lambda: state_of(daemons.two, "bob").startswith("degraded: "), "the status says so", timeout=30)
            assert f"127.0.0.1:{postgres.port}/bob" in state_of(daemons.two, "bob")
            assert PASSWORD not in state_of(daemons.two, "bob")
            with pytest.raises(StorageUnavailable):
                bob.list()
            refused = daemons.two.cli("mail", "list", "--json")
            assert (refused.returncode, "storage-unavailable" in refused.stdout + refused.stderr) == (74, True)
            alice.send("bob", "meanwhile", "x", id="meanwhile")
            eventually(lambda: "cannot be used at the moment" in alice.track("meanwhile").reason, "the error is shown")
            assert alice.track("meanwhile").state == "waiting"
            report = tmp_path / "report"
            assert daemons.two.cli("bug-report", "--local", "--yes", "--output", str(report)).returncode == 0
            assert "degraded (left out" in report.read_text()
            assert "mailer" not in report.read_text()
            checked = daemons.two.cli("check", "bob", "Mail")
            assert "degraded: " in checked.stderr, checked.stderr
        finally:
            postgres.start()
        eventually(lambda: state_of(daemons.two, "bob") == "serving", "it recovers by itself", timeout=60)
        alice.retry()
        eventually(lambda: alice.track("meanwhile").state == "delivered", "it has arrived", timeout=60)
        assert [each.subject for each in bob.list().mails] == ["before", "meanwhile"]


def test_a_process_that_is_killed_gets_its_mailbox_back(daemons: TwoDaemons) -> None:
    """PostgreSQL ends the session of the process that was killed, and with it its lock."""
    killed = daemons.two.kill_actor("identity-bob")
    daemons.two.wait_actor("identity-bob", killed)
    with MailClient("bob", home=daemons.two.home) as bob:
        eventually(lambda: state_of(daemons.two, "bob") == "serving", "it holds its mailbox again", timeout=60)
        assert [each.subject for each in bob.list().mails] == ["before", "meanwhile"]


def test_mail_moves_to_postgresql_when_the_config_says_so(daemons: TwoDaemons, postgres: PostgresServer) -> None:
    """The file stays under another name. Without ``store`` the binding refuses to begin an empty mailbox."""
    carol = daemons.one.identity("carol", echo=False)
    add_binding(daemons.one, "carol", "Mail")
    with MailClient("carol", home=daemons.one.home) as client:
        client.send(carol, "to myself", "x", id="moved")
        eventually(lambda: client.track("moved").state == "delivered", "it has come")
        url = postgres.url(postgres.new_database())
        done = add(daemons.one, "carol", "Mail", url, "set-protocol")
        assert done.returncode == 0, done.stderr
        eventually(lambda: state_of(daemons.one, "carol") == "serving", "it has moved")
        assert [each.subject for each in client.list().mails] == ["to myself"]
        assert client.track("moved").state == "delivered"
        files = {each.name for each in daemons.one.home.path.rglob("mail.sqlite*")}
        assert "mail.sqlite.moved" in files
        back = daemons.one.cli("set-protocol", "carol", "--protocol", "Mail", "--config", "{}")
        assert back.returncode != 0
        assert "its data is in PostgreSQL" in back.stderr, back.stderr
        eventually(lambda: state_of(daemons.one, "carol") == "serving", "it goes on")
        assert [each.subject for each in client.list().mails] == ["to myself"]
    described = daemons.one.cli("remove-protocol", "carol", "--protocol", "Mail")
    assert "a mailbox with 1 mail" in described.stderr
    assert url in described.stderr
    assert daemons.one.cli("remove-protocol", "carol", "--protocol", "Mail", "--yes").returncode == 0
    database = url.rpartition("/")[2]
    assert postgres.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fastn%'", database) == []


def test_a_chat_is_in_postgresql(daemons: TwoDaemons, postgres: PostgresServer) -> None:
    database = postgres.new_database()
    for daemon, name in ((daemons.one, "alice"), (daemons.two, "bob")):
        assert add(daemon, name, "Chat", postgres.url(database)).returncode == 0
    sent = daemons.one.cli("chat", "bob", "--as", "alice", "--wait", input="first\nsecond\n")
    assert sent.returncode == 0, sent.stderr
    shown = daemons.two.cli("chat", "alice", "--as", "bob", "--last", "2", input="")
    assert [line.split("\t")[-1] for line in shown.stdout.splitlines()] == ["first", "second"]
    query = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'fastn_chat_%'"
    assert postgres.execute(query, database) == [(2,)]


def test_a_binding_stays_when_its_database_does_not_answer(daemons: TwoDaemons, postgres: PostgresServer) -> None:
    daemons.one.identity("dave", echo=False)
    database = postgres.new_database()
    assert add(daemons.one, "dave", "Mail", postgres.url(database)).returncode == 0
    remove = ("remove-protocol", "dave", "--protocol", "Mail", "--yes")
    postgres.stop()
    try:
        refused = daemons.one.cli(*remove)
        assert (refused.returncode, "--keep-data" in refused.stderr) == (74, True), refused.stderr
    finally:
        postgres.start()
    eventually(lambda: state_of(daemons.one, "dave") == "serving", "it goes on", timeout=60)
    assert daemons.one.cli(*remove).returncode == 0
    assert postgres.execute("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'fastn_%'", database) == []


@pytest.mark.parametrize("protocol", ["Mail", "Chat"])
def test_a_binding_starts_while_its_tables_are_locked(
    daemons: TwoDaemons, postgres: PostgresServer, protocol: str
) -> None:
    """A query that waits does not use up the time of the hook that begins it."""
    name, database = f"slow-{protocol.lower()}", postgres.new_database()
    daemons.one.identity(name, echo=False)
    assert add(daemons.one, name, protocol, postgres.url(database)).returncode == 0
    eventually(lambda: state_of(daemons.one, name, protocol) == "serving", "its tables are there")
    assert daemons.one.cli("protocol", "stop", name, protocol).returncode == 0
    query = (
        "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname LIKE 'fastn_%' AND tablename <> 'store'"
    )
    tables = ", ".join(table for (table,) in postgres.execute(query, database))
    with postgres.connect(database) as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE".encode())
        started = daemons.one.cli("protocol", "start", name, protocol)
        assert started.returncode == 0, started.stderr
    eventually(lambda: state_of(daemons.one, name, protocol) == "serving", "it serves", timeout=60)


def test_a_restored_identity_has_its_mail_once_the_first_one_is_offline(
    daemons: TwoDaemons, postgres: PostgresServer, tmp_path: Path
) -> None:
    """Two daemons with one identity: the second is refused with the name of the first, and takes over after it."""
    passphrase, backup = tmp_path / "passphrase", tmp_path / "backup"
    passphrase.touch(0o600)
    passphrase.write_text("a long enough passphrase")
    erin = daemons.two.identity("erin", echo=False)
    assert add(daemons.two, "erin", "Mail", postgres.url(postgres.new_database())).returncode == 0
    with MailClient("erin", home=daemons.two.home) as client:
        client.send(erin, "to myself", "x", id="kept")
        eventually(lambda: client.track("kept").state == "delivered", "it has come")
    options = ("--passphrase-file", str(passphrase))
    made = daemons.two.cli("backup", "create", str(backup), "--identity", "erin", *options)
    assert made.returncode == 0, made.stderr
    restored = daemons.one.cli("backup", "restore", str(backup), *options)
    assert restored.returncode == 0, restored.stderr
    eventually(lambda: "degraded: " in state_of(daemons.one, "erin"), "the second one is refused", timeout=60)
    assert f"process {daemons.two.pid('identity-erin')} of " in state_of(daemons.one, "erin")
    assert state_of(daemons.two, "erin") == "serving"
    assert daemons.two.cli("identity-offline", "erin").returncode == 0
    eventually(lambda: state_of(daemons.one, "erin") == "serving", "it takes over", timeout=60)
    with MailClient("erin", home=daemons.one.home) as client:
        assert [each.subject for each in client.list().mails] == ["to myself"]
    kept = daemons.one.cli("remove-protocol", "erin", "--protocol", "Mail", "--yes")
    assert "was there before" in kept.stderr, kept.stderr
    remove = ("remove-protocol", "erin", "--protocol", "Mail")
    assert daemons.one.cli(*remove, "--keep-data").returncode == 0
    named = daemons.one.cli(*remove)
    assert "has data in schema fastn_mail_" in named.stderr, named.stderr
    assert daemons.one.cli(*remove, "--yes").returncode == 0


def test_the_commands_of_the_page(daemons: TwoDaemons, postgres: PostgresServer, tmp_path: Path) -> None:
    """A new mailbox, and one that moves. The page's port stands for that of the server."""
    postgres.execute("CREATE ROLE alice LOGIN PASSWORD 'PASSWORD'")
    postgres.execute("CREATE DATABASE alice OWNER alice")
    blocks = dict(re.findall(r"^<!-- run: ([^\n]*) -->\n```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(name: str) -> str:
        script = blocks.pop(name).replace("5432", str(postgres.port)).replace("~", str(tmp_path))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], env=daemons.one.env | {"PATH": path}, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    remove = ("remove-protocol", "alice", "--protocol", "Mail", "--yes")
    assert daemons.one.cli(*remove).returncode == 0
    run("add a mailbox in PostgreSQL")
    assert state_of(daemons.one, "alice") == "serving"
    assert daemons.one.cli(*remove).returncode == 0
    add_binding(daemons.one, "alice", "Mail")
    with MailClient("alice", home=daemons.one.home) as client:
        client.send(daemons.alice, "to myself", "x", id="moved")
        eventually(lambda: client.track("moved").state == "delivered", "it has come")
        assert "Mail" in run("move a mailbox to PostgreSQL")
        eventually(lambda: state_of(daemons.one, "alice") == "serving", "it has moved")
        assert [each.subject for each in client.list().mails][-1:] == ["to myself"]
    assert not blocks
