"""Mail and Chat of an identity at two daemons: what the one on standby does, with a shared database and without."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fastn_p2p_client.errors import ApplicationError, P2PError
from fastn_p2p_client.ipc.messages import AddProtocol, PromoteReplica
from fastn_p2p_client.mail.sync import MailClient
from tests.support.daemons import Daemon, eventually
from tests.support.joined_replicas import JoinedReplicas, new_joined_replicas
from tests.support.postgres_server import PostgresServer


@pytest.fixture(scope="module")
def joined(postgres: PostgresServer) -> Iterator[JoinedReplicas]:
    """alice has a mailbox in PostgreSQL at both daemons, and the mailbox ``local`` in a file of each."""
    config = json.dumps({"store": postgres.url(postgres.new_database())})
    with new_joined_replicas() as made:
        for daemon in (made.owner, made.replica):
            options = ["--protocol", "Mail", "--config", config, "--allow", "everyone", "--yes"]
            done = daemon.cli("add-protocol", "alice", *options)
            assert done.returncode == 0, done.stderr
            with daemon.client() as client:
                client.control(AddProtocol("alice", "Mail", "local", ("everyone",)))
        with made.caller.client() as client:
            client.control(AddProtocol("bob", "Mail", "default"))
        yield made


def promote(joined: JoinedReplicas, name: str, instance: str = "default") -> None:
    with joined.owner.client() as client:
        client.control(PromoteReplica("alice", "Mail", instance, name))


def subjects(daemon: Daemon, instance: str = "default") -> list[str] | None:
    """Return the subjects of the mail that alice sees at a daemon; None if there is an error."""
    with MailClient("alice", instance, home=daemon.home) as alice:
        try:
            return [each.subject for each in alice.list().mails]
        except (ApplicationError, P2PError):
            return None


def refusal_at(daemon: Daemon) -> str:
    """Return the kind of the error with which alice's mail cannot be read at a daemon; empty for another outcome."""
    with MailClient("alice", home=daemon.home) as alice:
        try:
            alice.list()
        except ApplicationError as error:
            return error.kind
        except P2PError:
            return ""
    return ""


def send(joined: JoinedReplicas, subject: str, instance: str = "default") -> None:
    """Have bob send a mail, and wait until it has arrived."""
    with MailClient("bob", home=joined.caller.home) as bob:
        bob.send("alice", subject, "x", id=subject, instance=instance)

        def has_arrived() -> bool:
            bob.retry()
            return bob.track(subject).state == "delivered"

        eventually(has_arrived, f"{subject} has arrived")


def test_a_mailbox_in_a_database_goes_with_its_home(joined: JoinedReplicas) -> None:
    send(joined, "first")
    assert subjects(joined.owner) == ["first"]
    eventually(lambda: refusal_at(joined.replica) == "NotHome", "the replica names the home")
    promote(joined, "second")
    eventually(lambda: subjects(joined.replica) == ["first"], "the new home has the mailbox")
    assert subjects(joined.owner) is None
    send(joined, "second")
    assert subjects(joined.replica) == ["first", "second"]
    promote(joined, "")
    eventually(lambda: subjects(joined.owner) == ["first", "second"], "the owner has the mailbox again")


def test_a_mailbox_in_a_file_stays_and_can_be_read(joined: JoinedReplicas) -> None:
    send(joined, "at the owner", "local")
    promote(joined, "second", "local")
    send(joined, "at the replica", "local")
    assert subjects(joined.replica, "local") == ["at the replica"]
    assert subjects(joined.owner, "local") == ["at the owner"]
    listed = joined.owner.cli("mail", "list", "--as", "alice", "--instance", "local")
    assert "at the owner" in listed.stdout
    notice = "The home of alice's Mail (local) is second: what arrives goes there"
    assert listed.stderr.count(notice) == 1
    shown = joined.replica.cli("mail", "list", "--as", "alice", "--instance", "local")
    assert "The home of" not in shown.stderr
    with MailClient("alice", "local", home=joined.owner.home) as alice:
        with pytest.raises(ApplicationError, match="the home of this mailbox is second") as caught:
            alice.send("alice", "no", "x")
        assert caught.value.kind == "NotHome"
