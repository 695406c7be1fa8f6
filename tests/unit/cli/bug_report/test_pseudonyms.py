"""Pseudonyms: what identifies people and machines is replaced, the same by the same, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p.cli.bug_report.log_excerpts import without_protocols
from fastn_p2p.cli.bug_report.pseudonyms import Pseudonyms

HOME = Path("/home/alicia/.fastn")
ID52 = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
ENDPOINT = "ab12" * 16


def pseudonyms() -> Pseudonyms:
    return Pseudonyms(
        HOME, {"identity": ["shop", "a"], "peer": ["bob", "bob-2"], "group": ["friends"]}, "alicia", "box"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop called bob and bob-2", "<identity-1> called <peer-1> and <peer-2>"),
        ("identity-shop.log of fastn@shop", "identity-<identity-1>.log of fastn@<identity-1>"),
        ("a shopper, bobby and a_b", "<identity-1> shopper, bobby and a_b"),
        (f"{ID52} or fastn-p2p://{ID52}/Echo", "<key-1> or fastn-p2p://<key-1>/Echo"),
        (f"{ENDPOINT} is {ENDPOINT[:10]}", "<key-1> is <key-1>"),
        (f"fastn1{ID52}{ID52}", "<ticket-1>"),
        ("192.168.1.7:4433, 8.8.8.8 and 127.0.0.1:1", "<ipv4-private-1>:4433, <ipv4-public-1> and 127.0.0.1:1"),
        ("[2a01:4f8::1]:80, fe80::1 and [::1]:1", "[<ipv6-public-1>]:80, <ipv6-link-1> and [::1]:1"),
        ("de:ad:be:ef:00:01", "<device-1>"),
        ("https://relay.example.org:8443/x", "https://<host-1>:8443/x"),
        ("https://euc1-1.relay.n0.iroh.link./", "https://euc1-1.relay.n0.iroh.link./"),
        (f"{HOME}/peers/bob.json", "<home>/peers/<peer-1>.json"),
        ("read /srv/photos/holiday.jpg", "read <path-1>"),
        ('File "/usr/lib/python3/x.py", line 3', 'File "/usr/lib/python3/x.py", line 3'),
        ("/root/src/fastn_p2p_actors/network/x.py", "…/fastn_p2p_actors/network/x.py"),
        (
            "at 2026-11-30T02:56:42.123Z, 27.3.0, 1073741824 bytes",
            "at 2026-11-30T02:56:42.123Z, 27.3.0, 1073741824 bytes",
        ),
        ("alicia at box", "<user-1> at <host-1>"),
    ],
)
def test_what_identifies_is_replaced(text: str, expected: str) -> None:
    assert pseudonyms().replace(text) == expected


def test_the_same_has_the_same_pseudonym_in_all_of_the_report() -> None:
    made = pseudonyms()
    assert made.replace("bob 10.0.0.1") == made.replace("bob 10.0.0.1") == "<peer-1> <ipv4-private-1>"
    assert made.replace("10.0.0.2 bob-2") == "<ipv4-private-2> <peer-2>"


@given(
    st.lists(st.from_regex(r"[ab][ab1_-]{0,4}", fullmatch=True), max_size=6),
    st.text(alphabet="ab1_-. <>A", max_size=40),
)
def test_the_longest_name_at_each_place_is_replaced(names: list[str], text: str) -> None:
    """As an expression with all names would, which takes minutes where there are thousands of them."""
    words = sorted(names, key=len, reverse=True)
    simple = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(map(re.escape, words)) or '(?!)'})(?![A-Za-z0-9_])")
    made = Pseudonyms(HOME, {"name": names})
    assert made.replace(text) == simple.sub(lambda found: made._of("name", found[0]), text)


def test_pseudonym_is_not_taken_for_a_name() -> None:
    made = Pseudonyms(HOME, {"identity": ["key", "host", "ipv4"]}, host="box.example")
    assert (
        made.replace(f"{ID52} at 10.0.0.1, box.example, key") == "<key-1> at <ipv4-private-1>, <host-1>, <identity-1>"
    )


@given(st.text(alphabet="ab/:. 01[]%fo-_\"'\n", max_size=60))
def test_any_text_can_be_replaced_around_a_name(text: str) -> None:
    assert "bob" not in pseudonyms().replace(f"{text} bob {text}").split()


def test_texts_of_protocols_are_left_out() -> None:
    log = """\
2026-11-30T02:56:42.000Z INFO identity-shop: ready
2026-11-30T02:56:43.000Z WARNING my_shop.orders: order of a book by Carol
  second line
2026-11-30T02:56:44.000Z ERROR fastn_p2p_client.serving.binding: Shop (default) of shop: uncaught ValueError
Traceback (most recent call last):
  File "/srv/shop/orders.py", line 7, in book
    raise ValueError("the card 1234")
ValueError: the card 1234
"""
    assert list(without_protocols(log.splitlines())) == [
        "2026-11-30T02:56:42.000Z INFO identity-shop: ready",
        "2026-11-30T02:56:43.000Z WARNING my_shop.orders: (left out: the text of a protocol)",
        "2026-11-30T02:56:44.000Z ERROR fastn_p2p_client.serving.binding: Shop (default) of shop: uncaught ValueError",
        '  File "/srv/shop/orders.py", line 7',
        "ValueError: …",
    ]
