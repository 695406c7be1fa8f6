"""The line about what waits for the owner: its words, the commands that it names, and when there is none."""

from __future__ import annotations

import pytest

from fastn_p2p.console.waiting_notice import waiting_text
from fastn_p2p_client.ipc.messages import WaitingItem

STRANGERS = WaitingItem(count=2)
MAILS = WaitingItem(identity="alice", protocol="Mail", count=1)
OFFERS = WaitingItem(identity="alice", protocol="FileTransfer", count=3)
ORDERS = WaitingItem(identity="bob", protocol="Shop", count=1234)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], ""),
        ([MAILS], "alice has 1 new mail. See: fastn-p2p mail list --as alice"),
        (
            [OFFERS, MAILS],
            "alice has 3 file offers and 1 new mail. See: fastn-p2p files offers --as alice, "
            "fastn-p2p mail list --as alice",
        ),
        (
            [STRANGERS, MAILS, ORDERS],
            "2 strangers ask for access; alice has 1 new mail; bob has 1,234 waiting in Shop. See: "
            "fastn-p2p peer pending, fastn-p2p mail list",
        ),
        ([ORDERS], "bob has 1,234 waiting in Shop"),
        (
            [WaitingItem(identity=name, protocol="Mail", count=1) for name in "abcde"],
            "a has 1 new mail; b has 1 new mail; c has 1 new mail; 2 more identities have something, too. See: "
            "fastn-p2p mail list",
        ),
    ],
)
def test_says_what_waits_and_which_command_lists_it(items: list[WaitingItem], text: str) -> None:
    assert waiting_text(["list-identities"], items) == text


def test_a_command_does_not_mention_what_it_is_about() -> None:
    both = [STRANGERS, MAILS]
    assert "mail" not in waiting_text(["mail", "read", "1"], both)
    assert "stranger" not in waiting_text(["peer", "pending"], both)
    assert waiting_text(["status"], both) == ""
    assert waiting_text(["mail", "list"], [MAILS]) == ""
