"""Groups of peers, and access lists that name them."""

from __future__ import annotations

from pathlib import Path

import pytest
from nacl.signing import SigningKey

from fastn_p2p_actors.network.address_book import AddressBook
from fastn_p2p_actors.network.contacts import groups as module
from fastn_p2p_actors.network.serving.access_list import AccessList
from fastn_p2p_actors.network.serving.registry import Registry
from fastn_p2p_client.errors import GroupExists, GroupNotFound, InvalidName, Overloaded
from fastn_p2p_client.keys import id52_of

BOB, CAROL, EVE = (bytes(SigningKey(bytes([number]) * 32).verify_key) for number in (1, 2, 3))


@pytest.fixture
def book(tmp_path: Path) -> AddressBook:
    made = AddressBook(tmp_path, lambda: 1_800_000_000.0)
    made.load()
    made.add(id52_of(BOB), "bob")
    made.add(id52_of(CAROL), "carol")
    return made


def access(book: AddressBook, *allow: str) -> AccessList:
    return AccessList(allow, book, Registry())


def test_changes_of_a_group_count_at_once(book: AddressBook) -> None:
    listed = access(book, "group:friends")
    assert not listed.admits(BOB)
    book.groups.create("friends")
    assert not listed.admits(BOB)
    book.groups.change("friends", [BOB, EVE], [])
    assert listed.admits(BOB)
    assert listed.admits(EVE), "a member need not be in the address book"
    assert not listed.admits(CAROL)
    book.groups.change("friends", [CAROL], [BOB])
    assert not listed.admits(BOB)
    assert listed.admits(CAROL)
    book.groups.delete("friends")
    assert not listed.admits(CAROL)


def test_member_stays_one_when_it_is_renamed(book: AddressBook) -> None:
    book.groups.create("friends")
    book.groups.change("friends", [BOB], [])
    book.add(id52_of(BOB), "robert")
    assert access(book, "group:friends").admits(BOB)
    assert [each.members for each in book.groups.infos(book.name_of)] == [["robert"]]


def test_group_is_not_the_peer_of_its_name(book: AddressBook) -> None:
    book.groups.create("carol")
    book.groups.change("carol", [BOB], [])
    assert access(book, "group:carol").admits(BOB)
    assert not access(book, "group:carol").admits(CAROL)
    assert access(book, "carol").admits(CAROL)
    assert not access(book, "carol").admits(BOB)


def test_restart_keeps_groups(book: AddressBook, tmp_path: Path) -> None:
    book.groups.create("friends")
    book.groups.create("empty")
    book.groups.change("friends", [BOB, EVE], [])
    again = AddressBook(tmp_path, lambda: 1_800_000_000.0)
    again.load()
    assert again.warnings == []
    assert [(each.name, each.members) for each in again.groups.infos(again.name_of)] == [
        ("empty", []),
        ("friends", ["bob", id52_of(EVE)]),
    ]
    assert EVE in again.known, "a limit for strangers must not reject a member"


def test_damaged_file_is_a_warning(book: AddressBook, tmp_path: Path) -> None:
    (tmp_path / ".groups.json").write_text('{"groups": {"friends": ["x"]}}')
    again = AddressBook(tmp_path, lambda: 1_800_000_000.0)
    again.load()
    assert [".groups.json" in each for each in again.warnings] == [True]
    assert not access(again, "group:friends").admits(BOB)


def test_removed_peer_is_in_no_group(book: AddressBook) -> None:
    book.groups.create("friends")
    book.groups.create("work")
    for group in ("friends", "work"):
        book.groups.change(group, [BOB, CAROL], [])
    assert book.groups.remove_member(BOB) == ["friends", "work"]
    assert book.groups.remove_member(BOB) == []
    assert book.groups.of(CAROL) == ["friends", "work"]


def test_wrong_requests_change_nothing(book: AddressBook, monkeypatch: pytest.MonkeyPatch) -> None:
    book.groups.create("friends")
    with pytest.raises(GroupExists):
        book.groups.create("friends")
    with pytest.raises(InvalidName):
        book.groups.create("group:x")
    with pytest.raises(GroupNotFound):
        book.groups.delete("work")
    with pytest.raises(GroupNotFound):
        book.groups.change("work", [BOB], [])
    monkeypatch.setattr(module, "MAX_MEMBERS", 1)
    with pytest.raises(Overloaded):
        book.groups.change("friends", [BOB, CAROL], [])
    monkeypatch.setattr(module, "MAX_GROUPS", 1)
    with pytest.raises(Overloaded):
        book.groups.create("work")
    assert [(each.name, each.members) for each in book.groups.infos(book.name_of)] == [("friends", [])]


@pytest.mark.parametrize(
    ("allow", "why"),
    [
        (("everyone",), "everyone"),
        (("everyone", "peers"), "peers"),
        (("peers", "group:friends"), "group:friends"),
        (("peers", "group:friends", "bob"), "bob"),
        (("bob", id52_of(BOB)), id52_of(BOB)),
        (("carol",), ""),
        ((id52_of(CAROL), "group:none"), ""),
    ],
)
def test_the_most_specific_entry_is_the_reason(book: AddressBook, allow: tuple[str, ...], why: str) -> None:
    book.groups.create("friends")
    book.groups.change("friends", [BOB], [])
    listed = access(book, *allow)
    assert listed.entry_for(BOB) == why
    assert listed.admits(BOB) == bool(why)


def test_entries_list_each_identity_once_and_mark_those_that_admit_no_peer(book: AddressBook) -> None:
    book.groups.create("friends")
    book.groups.create("empty")
    book.groups.change("friends", [BOB, EVE], [])
    listed = access(book, "bob", "group:friends", "group:empty", "group:gone", "dora", "peers", "everyone")
    assert [(each.who, each.why, each.problem) for each in listed.entries()] == [
        ("bob", "bob", ""),
        (id52_of(EVE), "group:friends", ""),
        ("group:empty", "group:empty", "the group is empty"),
        ("group:gone", "group:gone", "there is no such group"),
        ("dora", "dora", "no peer has this name"),
        ("peers", "peers", ""),
        ("everyone", "everyone", ""),
    ]
