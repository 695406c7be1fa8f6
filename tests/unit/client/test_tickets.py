"""Tickets and names: texts that people copy and type."""

from __future__ import annotations

import contextlib
import copy
import pickle
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_actors.credentials import verify_record
from fastn_p2p_client.errors import BadMessage, CredentialError, InvalidName, InvalidTicket
from fastn_p2p_client.limits import MAX_NAME
from fastn_p2p_client.names import NamedThing, check_name
from fastn_p2p_client.tickets import MAX_RECORD, MAX_TICKET, Ticket
from tests.support.signer import NOW, Signer

ALICE = Signer("alice")
RECORD = ALICE.record()
TEXT = str(Ticket.of_record(RECORD))


def test_ticket_carries_the_record_and_names_its_identity() -> None:
    ticket = Ticket(f"\n  {TEXT}\t\n")
    assert str(ticket) == TEXT
    assert TEXT.startswith("fastn1")
    assert ticket.record_bytes == RECORD
    assert ticket.identity == ALICE.key
    assert verify_record(ticket.record_bytes, now=NOW).identity == ALICE.key
    assert Ticket.is_ticket(TEXT)


def test_tickets_with_the_same_record_are_equal() -> None:
    ticket = Ticket(TEXT)
    assert {ticket, Ticket.of_record(RECORD)} == {ticket}
    assert pickle.loads(pickle.dumps(ticket)) == copy.deepcopy(ticket) == ticket
    assert ticket != Ticket.of_record(ALICE.record(sequence=2))
    with pytest.raises(AttributeError):
        ticket.text = "x"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "text",
    ["", "fastn1", TEXT[:40].upper() + TEXT[40:], TEXT[1:], TEXT[:-1], TEXT + "0", TEXT[:40] + " " + TEXT[40:],
     TEXT[:50] + "w" + TEXT[51:], TEXT + "=",
     ALICE.key.id52, "fastn1" + "é" * 8, "fastn1" + "0" * MAX_TICKET, "fastn2" + TEXT[6:]],
)  # fmt: skip
def test_rejects_invalid_tickets_with_a_reason(text: str) -> None:
    with pytest.raises(InvalidTicket) as caught:
        Ticket(text)
    assert len(caught.value.reason) < 200


@given(st.text(max_size=80) | st.text("0123456789abcdefghijklmnopqrstuv", max_size=200).map("fastn1".__add__))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidTicket):
        Ticket(text)


@given(st.binary(max_size=300))
def test_any_bytes_are_no_record(record: bytes) -> None:
    with pytest.raises(InvalidTicket):
        Ticket.of_record(record)


@given(st.integers(6, len(TEXT) - 1), st.sampled_from("0123456789abcdefghijklmnopqrstuv"))
def test_mistyped_ticket_is_refused_here_or_where_it_is_verified(position: int, character: str) -> None:
    mistyped = TEXT[:position] + character + TEXT[position + 1 :]
    if mistyped == TEXT:
        return
    with pytest.raises((InvalidTicket, CredentialError, BadMessage)):
        verify_record(Ticket(mistyped).record_bytes, now=NOW)


def test_largest_record_fits_and_one_byte_more_does_not() -> None:
    overhead = len(ALICE.sign("record", [1, bytes(ALICE.key), bytes(1000)])) - 1000
    largest = ALICE.sign("record", [1, bytes(ALICE.key), bytes(MAX_RECORD - overhead)])
    assert len(largest) == MAX_RECORD
    assert len(str(Ticket.of_record(largest))) == MAX_TICKET
    with pytest.raises(InvalidTicket, match=str(MAX_RECORD)):
        Ticket.of_record(largest + b"x")


# ── names ────────────────────────────────────────────────────────────────────────────────────────

GOOD: list[tuple[NamedThing, list[str]]] = [
    ("an identity", ["a", "alice", "alice-2", "a_b", "a" * MAX_NAME]),
    ("a protocol", ["Echo", "FileTransfer", "echo2", "E"]),
    ("an instance", ["default", "2", "2nd", "a-b_c"]),
    ("a peer", ["bob", "bob-at-work", "b" * (MAX_NAME - 1)]),
]
BAD: list[tuple[NamedThing, list[str]]] = [
    (
        "an identity",
        ["2", "-a", "_a", "Alice", "a.b", "a/b", "..", "é", "a ", "a\n", "a\0", "ａ", "a" * (MAX_NAME + 1)],
    ),
    ("a protocol", ["2Echo", "File-Transfer", "File_Transfer", "File.Transfer", "Écho", "Echo\n"]),
    ("an instance", ["-", "Default", "a.b", "٢", "..", "default\n"]),
    ("a peer", ["Bob", "2bob", "bob/", ALICE.key.id52.replace(ALICE.key.id52[0], "b", 1)]),
]


@pytest.mark.parametrize(("what", "name"), [(what, name) for what, names in GOOD for name in names])
def test_good_names(what: NamedThing, name: str) -> None:
    assert check_name(name, what) == name


@pytest.mark.parametrize(("what", "name"), [(what, name) for what, names in BAD for name in ["", *names]])
def test_bad_names(what: NamedThing, name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        check_name(name, what)
    assert (caught.value.name, caught.value.what) == (name, what)


@given(st.text(max_size=MAX_NAME * 3), st.sampled_from([what for what, _ in GOOD]))
def test_any_name_that_passes_is_safe_in_a_path(name: str, what: str) -> None:
    with contextlib.suppress(InvalidName):
        check_name(name, cast(NamedThing, what))
        assert name.isascii()
        assert name[0].isalnum()
        assert name.replace("-", "").replace("_", "").isalnum()
