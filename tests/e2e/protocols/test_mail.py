"""Mail between two daemons: the commands, the program's API, and what others may not do."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec
import pytest

from fastn_p2p.cli import main
from fastn_p2p_client.errors import ApplicationError, BadRequest, Denied, InvalidConfig, P2PError
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.mail import Attachment, MailContent
from fastn_p2p_client.mail.messages import MAX_CONTENT, DeliverMail, DeliveryReceipt, OutgoingMail
from fastn_p2p_client.mail.sync import MailClient
from tests.support.daemons import CLI, Daemon, eventually
from tests.support.terminals import on_terminal
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons

NOBODY = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    """alice and bob have mailboxes and each other in their address books; bob also has ``work`` and ``closed``."""
    with start_two_daemons(echo=False) as made:
        for daemon, name in ((made.one, "alice"), (made.two, "bob")):
            add_binding(daemon, name, "Mail")
        add_binding(made.two, "bob", "Mail", "work", "peers")
        add_binding(made.two, "bob", "Mail", "closed", NOBODY)
        for daemon, name, id52 in ((made.one, "bob", made.bob), (made.two, "alice", made.alice)):
            with daemon.client() as client:
                client.control(m.AddPeer(id52, name))
        yield made


@pytest.fixture
def alice(daemons: TwoDaemons) -> Iterator[MailClient]:
    with MailClient("alice", home=daemons.one.home) as client:
        yield client


@pytest.fixture
def bob(daemons: TwoDaemons) -> Iterator[MailClient]:
    """An empty mailbox."""
    with MailClient("bob", home=daemons.two.home) as client:
        client.delete(*(each.number for each in client.list().mails))
        yield client


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Command: TypeAlias = Callable[..., Done]


@pytest.fixture
def mail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """``fastn-p2p mail`` with these arguments, in this process."""

    def run(daemon: Daemon, *arguments: str, input: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode())))
        capsys.readouterr()
        code = main(["mail", "--home", str(daemon.home.path), *arguments])
        written = capsys.readouterr()
        return Done(code, written.out, written.err)

    return run


# ── the commands ─────────────────────────────────────────────────────────────────────────────────


def test_sends_lists_reads_and_deletes_a_mail(
    daemons: TwoDaemons, bob: MailClient, tmp_path: Path, mail: Command
) -> None:
    (tmp_path / "plan.txt").write_text("at noon")
    attach = ("--attach", str(tmp_path / "plan.txt"))
    command = ("send", "bob", "--subject", "Lunch?", *attach)
    sent = daemons.one.cli("mail", *command, input="As always.\n").stdout
    last = bob.list(wait=60).mails[-1]
    assert last.id == sent.strip()
    (row,) = mail(daemons.two, "list").stdout.splitlines()
    number, new, sender, _, _, files, subject = row.split("\t")
    assert (new, sender, files, subject) == ("new", "alice", "1", "Lunch?")

    read = mail(daemons.two, "read", number, "--save", str(tmp_path / "saved"))
    assert (read.returncode, read.stdout) == (0, "As always.\n")
    assert f"From: alice ({daemons.alice})" in read.stderr
    assert "Subject: Lunch?" in read.stderr
    assert (tmp_path / "saved" / "plan.txt").read_text() == "at noon"
    again = mail(daemons.two, "read", number, "--save", str(tmp_path / "saved"))
    assert again.returncode == 8
    assert "nothing was saved" in again.stderr

    assert mail(daemons.two, "list", "--unread").stdout == ""
    (listed,) = map(json.loads, mail(daemons.two, "list", "--json").stdout.splitlines())
    assert (listed["sender"], listed["read"], listed["subject"]) == (daemons.alice, True, "Lunch?")
    shown = json.loads(mail(daemons.two, "read", number, "--json").stdout)
    assert (shown["body"], shown["attachments"]) == ("As always.\n", [{"name": "plan.txt", "size": 7}])
    assert "Deleted 1 mail." in mail(daemons.two, "delete", number).stderr
    assert mail(daemons.two, "read", number).returncode == 7
    assert mail(daemons.two, "delete", number).returncode == 7


def test_mail_that_cannot_be_sent_says_why(daemons: TwoDaemons, tmp_path: Path, mail: Command) -> None:
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", MAX_CONTENT)
    for arguments, code, words in (
        (("send", "carol", "--subject", "x"), 7, "no peer named 'carol'"),
        (("send", daemons.bob[:-1], "--subject", "x"), 2, "not a public key"),
        (("send", "bob", "--subject", "x" * 999), 2, "998 are allowed"),
        (("send", "bob", "--subject", "x", "--attach", str(tmp_path / "none")), 2, "cannot read"),
        (("send", "bob", "--subject", "x", "--attach", str(tmp_path)), 2, "is a directory"),
        (("send", "bob", "--subject", "x", "--attach", str(tmp_path / "large")), 2, f"{MAX_CONTENT}"),
        (("send", "bob", "--subject", "x", "--peer-instance", "No!"), 2, "an instance"),
        (("send", "bob", "--subject", "x", "--as", "carol"), 7, "no identity 'carol'"),
        (
            ("list", "--instance", "other"),
            7,
            "Create it: fastn-p2p add-protocol alice --protocol Mail --instance other",
        ),
        (("read", "999"), 7, "no mail 999"),
        (("retry", "999"), 7, "nor have bounced"),
    ):
        done = mail(daemons.one, *arguments, input="")
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
        assert words in done.stderr, (arguments, done.stderr)


def test_sending_twice_with_the_same_id_stores_one_mail(daemons: TwoDaemons, bob: MailClient, mail: Command) -> None:
    for _ in range(2):
        sent = mail(daemons.one, "send", "bob", "--subject", "once", "--id", "order-66", input="x")
        assert sent.stdout == "order-66\n"
    taken = mail(daemons.one, "send", "bob", "--subject", "twice", "--id", "order-66", input="x")
    assert taken.returncode == 8
    mail(daemons.one, "send", "bob", "--subject", "after", input="")
    eventually(lambda: [each.subject for each in bob.list().mails] == ["once", "after"], "both have come, once each")


def test_control_characters_of_strangers_are_escaped(daemons: TwoDaemons, bob: MailClient, mail: Command) -> None:
    with MailClient("alice", home=daemons.one.home) as alice:
        alice.send("bob", "\x1b[2J\x07 a\tb\nc \u202egpj.exe", "\x1b[31m\n")
    bob.list(wait=60)
    row = mail(daemons.two, "list").stdout
    assert row.split("\t", 6)[6] == "\\x1b[2J\\x07 a\\tb\\nc \\u202egpj.exe\n"
    number = row.split("\t")[0]
    read = mail(daemons.two, "read", number)
    assert read.stdout == "\x1b[31m\n"  # piped: as it is
    assert "\x1b" not in read.stderr


# ── waiting and coming back ──────────────────────────────────────────────────────────────────────


def test_mail_waits_for_a_peer_and_comes_when_it_does(
    daemons: TwoDaemons, alice: MailClient, bob: MailClient, mail: Command
) -> None:
    with daemons.two.client() as client:
        client.control(m.SetIdentityOnline("bob", False))
        for number in range(3):
            alice.send("bob", f"waiting {number}", id=f"waiting-{number}")
        eventually(lambda: alice.track("waiting-0").reason, "an attempt has failed")
        rows = [row.split("\t") for row in mail(daemons.one, "outbox").stdout.splitlines()]
        assert [(row[1], row[2], row[5]) for row in rows] == [
            ("waiting", "bob", f"waiting {number}") for number in range(3)
        ]
        client.control(m.SetIdentityOnline("bob", True))
    assert alice.track("waiting-2", wait=60).state == "delivered"
    assert [each.subject for each in bob.list().mails] == [f"waiting {number}" for number in range(3)]
    assert mail(daemons.one, "outbox").stdout == ""
    assert len(mail(daemons.one, "outbox", "--all").stdout.splitlines()) >= 3


def test_a_daemon_that_comes_back_delivers_what_it_has_accepted(daemons: TwoDaemons, bob: MailClient) -> None:
    """And a peer's daemon that was away gets it."""
    daemons.two.stop()
    with MailClient("alice", home=daemons.one.home) as alice:
        alice.send("bob", "over restarts", id="over-restarts")
    daemons.one.stop()
    daemons.two.start()
    daemons.one.start()
    with MailClient("bob", home=daemons.two.home) as again:
        assert [each.subject for each in again.list(wait=60).mails] == ["over restarts"]
        following = again.follow(after=again.list().mails[-1].number - 1)
        assert next(following).subject == "over restarts"
        pid = daemons.two.kill_actor("identity-bob")
        with MailClient("alice", home=daemons.one.home) as alice:
            alice.send("bob", "while somebody follows")
        assert next(following).subject == "while somebody follows"
        daemons.two.wait_actor("identity-bob", not_pid=pid)
    with MailClient("alice", home=daemons.one.home) as alice:
        assert alice.track("over-restarts", wait=60).state == "delivered"


def test_a_rejected_mail_can_be_sent_again(daemons: TwoDaemons, alice: MailClient, mail: Command) -> None:
    alice.send("bob", "let me in", instance="closed", id="denied")
    entry = alice.track("denied", wait=60)
    assert (entry.state, entry.instance) == ("bounced", "closed")
    assert "could not be delivered. List them: fastn-p2p mail outbox" in mail(daemons.one, "list").stderr
    (row,) = mail(daemons.one, "outbox").stdout.splitlines()
    number, state, to, *_, reason = row.split("\t")
    assert (state, to) == ("bounced", "bob/closed")
    assert reason == str(Denied(peer=daemons.bob, protocol="Mail", instance="closed"))
    with daemons.two.client() as client:
        client.control(m.RemoveProtocol("bob", "Mail", "closed"))
        add_binding(daemons.two, "bob", "Mail", "closed", "peers")
    assert mail(daemons.one, "retry", number).returncode == 0
    assert alice.track("denied", wait=60).state == "delivered"


def test_a_mail_that_waits_can_be_withdrawn(daemons: TwoDaemons, alice: MailClient, mail: Command) -> None:
    accepted = alice.send(NOBODY, "a mistake", id="mistake")
    assert "Deleted 1 mail." in mail(daemons.one, "delete", "--outbox", str(accepted.number)).stderr
    with pytest.raises(ApplicationError) as caught:
        alice.track("mistake")
    assert caught.value.kind == "MailUnknown"


def test_quotas_turn_mail_away_with_a_reason(daemons: TwoDaemons, alice: MailClient) -> None:
    add_binding(daemons.two, "bob", "Mail", "small", "peers", max_message_size=200, max_attachments=0, max_messages=1)
    alice.send("bob", "large", "x" * 200, instance="small", id="large")
    alice.send("bob", "with", "", [Attachment("a", b"")], instance="small", id="with")
    alice.send("bob", "fits", instance="small", id="fits")
    alice.send("bob", "no room", instance="small", id="no-room")
    assert alice.track("fits", wait=60).state == "delivered"
    assert alice.track("large").reason.startswith("TooLarge: ")
    assert alice.track("with").reason == "TooManyAttachments: the mail has 1 attachments; at most 0 are accepted"
    eventually(lambda: alice.track("no-room").reason == "the mailbox is full: its limit is 1 mails", "there is no room")
    with MailClient("bob", "small", home=daemons.two.home) as small:
        small.delete(small.list().mails[0].number)
        assert alice.track("no-room", wait=60).state == "delivered"
        assert [each.subject for each in small.list().mails] == ["no room"]


# ── programs ─────────────────────────────────────────────────────────────────────────────────────


def test_programs_write_to_mailboxes_by_any_name(daemons: TwoDaemons, alice: MailClient, bob: MailClient) -> None:
    with daemons.two.client() as client:
        ticket = client.control(m.GetTicket("bob"))
    for number, name in enumerate(("bob", daemons.bob, ticket.ticket)):
        alice.send(name, f"{number}", instance="work", id=f"any-{number}")
    assert alice.track("any-2", wait=60).state == "delivered"
    with MailClient("bob", "work", home=daemons.two.home) as work:
        mails = work.list().mails
        assert [(each.subject, each.sender, each.instance) for each in mails[-3:]] == [
            (f"{number}", daemons.alice, "default") for number in range(3)
        ]
        work.send("alice", "an answer", instance=mails[-1].instance)
        follow = alice.follow()
        answer = next(each for each in follow if each.subject == "an answer")
        assert (answer.sender, answer.name, answer.instance) == (daemons.bob, "bob", "work")
    assert not bob.list().mails


def test_an_identity_writes_to_itself(daemons: TwoDaemons, alice: MailClient) -> None:
    alice.send(daemons.alice, "to myself", "a note", id="note")
    assert alice.track("note", wait=60).state == "delivered"
    mine = alice.list().mails[-1]
    assert (mine.sender, mine.subject) == (daemons.alice, "to myself")
    assert alice.read(mine.number).letter.body == "a note"


def test_a_mail_of_the_largest_size_arrives_and_one_byte_more_does_not(
    daemons: TwoDaemons, alice: MailClient, bob: MailClient
) -> None:
    room = MAX_CONTENT - len(msgspec.msgpack.encode(MailContent("", "", (Attachment("a", b"x" * 70_000),)))) + 70_000
    content = os.urandom(room)
    alice.send("bob", "", "", [Attachment("a", content)], id="largest")
    assert alice.track("largest", wait=60).state == "delivered"
    largest = bob.read(bob.list().mails[-1].number)
    assert largest.summary.size == MAX_CONTENT
    assert largest.letter.attachments[0].content == content
    with pytest.raises(ApplicationError) as caught:
        alice.send("bob", "", "", [Attachment("a", content + b"x")])
    assert caught.value.kind == "TooLarge"
    assert "files put" in caught.value.message


def test_only_the_owner_reads_and_sends(daemons: TwoDaemons) -> None:
    requests = [
        {"type": "send", "id": "x", "to": "alice", "letter": {}},
        {"type": "list"},
        {"type": "read", "number": 1},
        {"type": "delete", "numbers": [1]},
        {"type": "outbox"},
        {"type": "track", "id": "x"},
        {"type": "retry"},
    ]
    with daemons.one.client() as client:
        for request in requests:
            with pytest.raises(ApplicationError) as caught:
                client.call("alice", daemons.bob, "Mail", request=request)
            assert caught.value.kind == "NotOwner"


def test_malformed_deliveries_are_refused_without_effect(daemons: TwoDaemons, bob: MailClient) -> None:
    def parcel(letter: object, **other: object) -> dict[str, object]:
        return {"type": "deliver", "stream": b"s" * 16, "instance": "x", "parcels": [[1, "id", 0, letter]], **other}

    nonsense: list[object] = [
        None,
        {"type": "unknown"},
        parcel(b"", stream=b"short"),
        parcel(b"", parcels=[]),
        parcel(b"", parcels=[[0, "id", 0, b""]]),
        parcel(b"", parcels=[[1, "", 0, b""]]),
        parcel(b"", parcels=[[1, "i" * 65, 0, b""]]),
        parcel(b"", parcels=[[number + 1, "id", 0, b""] for number in range(257)]),
        parcel(b"", parcels=[[1 << 63, "id", 0, b""]]),
        parcel("text"),
        parcel(b"", more=1),
    ]
    with daemons.one.client() as client:
        for request in nonsense:
            with pytest.raises(BadRequest):
                client.call("alice", daemons.bob, "Mail", request=request)
        with pytest.raises(P2PError):
            client.call("alice", daemons.bob, "Mail", request=parcel(b"", instance="../up"))
        letters = [b"", b"\xc1", msgspec.msgpack.encode({"subject": "x" * 999}), msgspec.msgpack.encode({"odd": 1})]
        delivery = DeliverMail(
            b"n" * 16,
            "x",
            tuple(OutgoingMail(number, f"{number}", 0, letter) for number, letter in enumerate(letters, 1)),
        )
        receipt = client.call("alice", daemons.bob, "Mail", request=delivery, returns=DeliveryReceipt)
        assert [each.kind for each in receipt.refused] == ["BadLetter"] * len(letters)
    assert not bob.list().mails


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"max_messages": 0}, "max_messages"),
        ({"bounce_after": 0}, "bounce_after"),
        ({"bounce_after": 1e9}, "bounce_after"),
        ({"max_message_size": MAX_CONTENT + 1}, "max_message_size"),
        ({"bounce": 1}, "bounce"),
    ],
)
def test_an_invalid_config_is_rejected_by_field(daemons: TwoDaemons, config: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        add_binding(daemons.one, "alice", "Mail", "wrong", **config)


def test_text_that_is_no_utf_8(daemons: TwoDaemons, mail: Command, tmp_path: Path) -> None:
    """Piped: refused, nothing is lost. Typed: taken, for it would be. In an argument: said before a body is typed."""
    piped = subprocess.run(
        [*CLI, "mail", "send", "bob", "--subject", "x"],
        input=b"caf\xe9",
        env=daemons.one.env,
        capture_output=True,
        timeout=100,
    )
    assert piped.returncode == 2
    assert b"not UTF-8" in piped.stderr
    with on_terminal(daemons.one.env, "mail", "send", "bob", "--subject", "typed bytes") as tty:
        tty.until(lambda rows: any("the body" in row for row in rows), "the question")
        tty.type(b"caf\xe9 au lait\r\x04")
        assert tty.ends() == 0
    with MailClient("bob", home=daemons.two.home) as bob:
        eventually(lambda: any(each.subject == "typed bytes" for each in bob.list(wait=5).mails), "it has come")
        (number,) = (each.number for each in bob.list().mails if each.subject == "typed bytes")
        assert bob.read(number).letter.body == "caf\ufffd au lait\n"
        bob.delete(number)
    with on_terminal(daemons.one.env, "mail", "send", "bob", "--subject", "caf\udce9") as tty:
        assert tty.ends() == 2
        assert b"--subject" in tty.raw
        assert b"the body" not in tty.raw
    for arguments in (("call", "b\udce9b", "Echo", "--data", "1"), ("call", daemons.bob, "Echo", "--data", '"\udce9"')):
        refused = daemons.one.cli(*arguments)
        assert refused.returncode == 2, refused.stderr
        assert "Traceback" not in refused.stderr


def test_mail_lies_where_the_config_says(daemons: TwoDaemons, tmp_path: Path) -> None:
    """The mail moves when the config changes, while the binding serves. It is deleted with the binding."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    carol = daemons.one.identity("carol", echo=False)
    config = json.dumps({"storage_dir": str(first)})
    assert daemons.one.cli("add-protocol", "carol", "--protocol", "Mail", "--config", config).returncode == 0
    with MailClient("carol", home=daemons.one.home) as client:
        client.send(carol, "to myself", "x", id="moved")
        eventually(lambda: client.track("moved").state == "delivered", "it has come")
        assert (first / carol / "default" / "mail.sqlite").is_file()
        for place, code, words in (
            (str(second), 0, "State: serving"),
            (str(tmp_path / "nowhere"), 2, "not an existing directory"),
            ("relative", 2, "not an absolute path"),
        ):
            change = json.dumps({"storage_dir": place})
            done = daemons.one.cli("set-protocol", "carol", "--protocol", "Mail", "--config", change)
            assert done.returncode == code, done.stderr
            assert words in done.stderr
            assert [each.subject for each in client.list().mails] == ["to myself"]
        assert (second / carol / "default" / "mail.sqlite").is_file()
        assert not list(first.iterdir())
    assert daemons.one.cli("remove-protocol", "carol", "--protocol", "Mail", "--yes").returncode == 0
    assert not list(second.iterdir())
    shown = daemons.one.cli("protocols").stdout
    assert re.search(r"storage_dir +string +default \"\" +directory in which mail is kept", shown), shown
    assert re.search(r"max_msgs +integer ≥ 1, ≤ \d+ +default 10000 +messages kept of one", shown), shown
