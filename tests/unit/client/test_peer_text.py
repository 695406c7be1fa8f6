"""Texts that name a peer: petnames, ID52s, tickets and URIs, as people paste and scan them."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_client.errors import InvalidKey, InvalidName, InvalidTicket
from fastn_p2p_client.peer_text import PeerText, name_or_id52, read_peer_text, ticket_of
from fastn_p2p_client.tickets import Ticket
from tests.support.signer import Signer

ALICE = Signer("alice")
ID52 = ALICE.key.id52
TICKET = str(Ticket.of_record(ALICE.record()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bob", PeerText("bob")),
        (ID52, PeerText(ID52)),
        (ID52.upper(), PeerText(ID52)),
        (f" {ID52}\n", PeerText(ID52)),
        (TICKET, PeerText(TICKET)),
        (TICKET.upper(), PeerText(TICKET)),
        ("\r\n".join(re.findall(".{1,60}", TICKET)), PeerText(TICKET)),
        (" ".join(re.findall(".{1,40}", TICKET.upper())), PeerText(TICKET)),
        (f"fastn-p2p://{ID52}", PeerText(ID52)),
        (f"fastn-p2p://{ID52}/", PeerText(ID52)),
        (f"FASTN-P2P://{ID52.upper()}", PeerText(ID52)),
        (f"FastN-p2p://{TICKET}", PeerText(TICKET)),
        (f"fastn-p2p://{ID52}/Echo", PeerText(ID52, "Echo")),
        (f"fastn-p2p://{ID52}/Echo/", PeerText(ID52, "Echo")),
        (f"FASTN-P2P://{ID52}/Echo/short", PeerText(ID52, "Echo", "short")),
    ],
)
def test_each_form(text: str, expected: PeerText) -> None:
    assert read_peer_text(text) == expected


def test_a_mixture_of_cases_is_left_for_the_key_to_refuse() -> None:
    assert read_peer_text(ID52[:20].upper() + ID52[20:]).name != ID52


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"https://{ID52}", "begins with fastn-p2p://"),
        (f"fastn-p2p:{ID52}", "begins with fastn-p2p://"),
        ("fastn-p2p://", "an ID52 or a ticket follows"),
        ("fastn-p2p://bob/Echo", "A petname is given without it"),
        (f"fastn-p2p://{ID52}?a=b", "no ? and no #"),
        (f"fastn-p2p://{ID52}/Echo/default/more", "its form is"),
    ],
)
def test_other_uris_are_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        read_peer_text(text)
    assert words in str(caught.value)


@pytest.mark.parametrize("path", ["no-protocol", "Echo/Not An Instance", "../x", "Echo/../x"])
def test_names_in_a_uri_follow_their_rules(path: str) -> None:
    with pytest.raises((InvalidName, InvalidKey)):
        read_peer_text(f"fastn-p2p://{ID52}/{path}")


def test_a_uri_must_name_what_the_caller_names() -> None:
    named = PeerText(ID52, "Echo", "short")
    named.check_target("Echo", "short")
    named.check_target("", "")
    PeerText(ID52).check_target("Mail", "any")
    for protocol, instance in (("Mail", "short"), ("Echo", "long")):
        with pytest.raises(InvalidName):
            named.check_target(protocol, instance)


def test_tickets_in_every_form() -> None:
    for text in (TICKET, TICKET.upper(), f"fastn-p2p://{TICKET}/Echo", f"\n{TICKET[:50]}\n{TICKET[50:]}"):
        found = ticket_of(text)
        assert found is not None
        assert (str(found), found.identity) == (TICKET, ALICE.key)
    assert ticket_of("bob") is None
    assert ticket_of(ID52.upper()) is None
    assert Ticket(TICKET.upper()) == Ticket(TICKET)
    assert str(Ticket(TICKET.upper())) == TICKET


@given(st.text(max_size=200) | st.text(max_size=100).map("fastn-p2p://".__add__))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidKey, InvalidName):
        assert "://" not in read_peer_text(text).name


@pytest.mark.parametrize("text", [ID52, ID52.upper(), TICKET, TICKET.upper(), f"fastn-p2p://{TICKET}/Echo"])
def test_every_form_of_a_key_gives_its_id52(text: str) -> None:
    assert name_or_id52(text) == ID52


def test_a_petname_is_left_as_it_is() -> None:
    assert name_or_id52("bob") == "bob"
    with pytest.raises(InvalidTicket):
        name_or_id52(TICKET[:-9])
