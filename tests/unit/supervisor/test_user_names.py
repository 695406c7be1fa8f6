"""Users of the daemon's processes, as an option names them."""

from __future__ import annotations

import pwd
import re

import pytest

from fastn_p2p_actors.runtime.separate_users import SeparateUsers, account_of
from fastn_p2p_supervisor.user_names import parse_users

NUMBERS = "vault=60600,network=60601,gateway=60602,identities=60610-60619,programs=60603"


def test_numbers_need_no_account() -> None:
    users = SeparateUsers((60600, 60600), (60601, 60601), (60602, 60602), 60610, 60619, 60603)
    assert parse_users(NUMBERS) == users


def test_accounts_have_their_own_group() -> None:
    account = next(each for each in pwd.getpwall() if each.pw_uid)
    users = parse_users(NUMBERS.replace("vault=60600", f"vault={account.pw_name}"))
    assert users.vault == (account.pw_uid, account.pw_gid)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is none of vault=..., network=..."),
        ("everybody", "'everybody' is none of"),
        (f"{NUMBERS},vault=60604", "'vault=60604' is none of"),
        (NUMBERS.replace("60600", "nobody-of-this-name"), "there is no user 'nobody-of-this-name'"),
        (NUMBERS.replace("=60603", "=no-group"), "there is no group 'no-group'"),
        (NUMBERS.replace("60600", "60601"), "three users"),
        (NUMBERS.replace("60600", "0"), "none of which is root"),
        (NUMBERS.replace("60600", "60611"), "contains a user or group of another process"),
        (NUMBERS.replace("=60603", "=60619"), "contains a user or group of another process"),
        (NUMBERS.replace("60610-60619", "60610"), "is no range"),
        (NUMBERS.replace("60610-60619", "60619-60610"), "is no range"),
        (NUMBERS.replace("60610-60619", "0-60599"), "is no range"),
        (NUMBERS.replace("60610-60619", "100000-200000"), "more than 50,000 numbers"),
        (NUMBERS.replace("60610-60619", "1-100"), "has one of these numbers"),
    ],
)
def test_others_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_users(text)


def test_mailboxes_admit_who_needs_them() -> None:
    users = parse_users(NUMBERS)
    admitted = {
        actor: [
            uid for uid in (0, 60600, 60601, 60602, 60610, 60619, 1000) if account_of(users, actor, 60610).admits(uid)
        ]
        for actor in ("vault", "network", "gateway", "identity-alice")
    }
    assert admitted == {
        "vault": [0, 60602],
        "network": [0, 60600, 60601, 60602, 1000],
        "gateway": [0, 60600, 60601, 60602, 1000],
        "identity-alice": [0, 60602],
    }
