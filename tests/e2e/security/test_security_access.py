"""Access lists: strangers are denied unless a binding says otherwise, and what the address book says counts at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastn_p2p_client.errors import Denied, P2PError
from fastn_p2p_client.ipc import messages as m
from tests.support.raw_connections import unharmed
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons

INSTANCES = ("default", "everyone", "peers", "petname", "key", "nobody")


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    """bob offers Echo, which is public by itself, to all sorts of people."""
    with start_two_daemons(echo=False) as made:
        add_binding(made.two, "bob", "Echo", "everyone", "everyone")
        add_binding(made.two, "bob", "Echo", "peers", "peers")
        with made.two.client() as client:  # a petname must be somebody's when it is put into a list
            client.control(m.AddPeer(made.alice, "ally"))
            add_binding(made.two, "bob", "Echo", "petname", "ally")
            client.control(m.RemovePeer("ally"))
        add_binding(made.two, "bob", "Echo", "key", made.alice)
        add_binding(made.two, "bob", "Echo", "nobody", "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
        yield made


def admitted(daemons: TwoDaemons, identity: str = "alice") -> set[str]:
    """The instances of bob's Echo that let the identity in; at all others it is denied."""
    found: set[str] = set()
    told: list[tuple[str, str, str]] = []
    daemon = daemons.one if identity == "alice" else daemons.two
    with daemon.client() as client:
        for instance in INSTANCES:
            try:
                client.call(identity, daemons.bob, "Echo", instance, {"message": "hi"})
                found.add(instance)
            except Denied as denied:
                told.append((denied.peer, denied.protocol, denied.instance))
    assert told == [(daemons.bob, "Echo", instance) for instance in INSTANCES if instance not in found]
    return found


def calls_of(daemons: TwoDaemons) -> dict[str, int]:
    (bob,) = (each for each in daemons.two.status().identities if each.name == "bob")
    return {binding.instance: binding.calls for binding in bob.bindings}


def test_address_book_of_the_callee_decides_and_changes_live(daemons: TwoDaemons) -> None:
    stranger = {"default", "everyone", "key"}
    with unharmed(daemons.one), unharmed(daemons.two), daemons.two.client() as client:
        before = calls_of(daemons)
        assert admitted(daemons) == stranger
        after = calls_of(daemons)
        assert {name for name in INSTANCES if after[name] != before[name]} == stranger  # protocol code saw nothing else

        client.control(m.AddPeer(daemons.alice, "acquaintance"))
        assert admitted(daemons) == {*stranger, "peers"}
        client.control(m.RemovePeer("acquaintance"))
        assert admitted(daemons) == stranger
        client.control(m.AddPeer(daemons.alice, "ally"))
        assert admitted(daemons) == {*stranger, "peers", "petname"}
        client.control(m.RemovePeer("ally"))
        assert admitted(daemons) == stranger


def test_petname_means_who_has_it_now(daemons: TwoDaemons) -> None:
    """Not who had it when the binding was made."""
    with daemons.two.client() as client:
        client.control(m.AddPeer(daemons.alice, "ally"))
        client.control(m.RemovePeer("ally"))
        client.control(m.AddPeer("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60", "ally"))
        assert "petname" not in admitted(daemons)
        client.control(m.RemovePeer("ally"))


def test_address_book_of_the_caller_opens_nothing(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client:
        client.control(m.AddPeer(daemons.bob, "ally"))
        assert admitted(daemons) == {"default", "everyone", "key"}
        client.control(m.RemovePeer("ally"))


def test_identities_of_the_same_daemon_are_peers(daemons: TwoDaemons) -> None:
    carol = daemons.two.identity("carol", echo=False)
    assert carol
    assert admitted(daemons, "carol") == {"default", "everyone", "peers"}


def test_an_identity_may_always_use_its_own_bindings(daemons: TwoDaemons) -> None:
    assert admitted(daemons, "bob") == set(INSTANCES)
    add_binding(daemons.two, "bob", "Trial", "nobody", "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
    with (
        daemons.two.client() as client,
        client.connect("bob", daemons.bob, "Trial", "nobody", {"do": "who"}) as session,
    ):
        assert session.read().startswith(daemons.bob.encode())


def test_access_list_that_means_nothing_is_refused(daemons: TwoDaemons) -> None:
    with daemons.two.client() as client:
        for entry in ("", "Everyone", "*", "../x", "a" * 65, "\0", "v" * 52):
            with pytest.raises(P2PError) as caught:
                client.control(m.AddProtocol("bob", "Echo", "odd", (entry,)))
            assert caught.value.code in ("invalid-name", "invalid-key"), entry
