"""Access lists: strangers are denied unless a binding says otherwise, and what the address book says counts at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastn_p2p_client.errors import Denied, P2PError
from fastn_p2p_client.ipc import messages as m
from tests.fuzz.raw import unharmed
from tests.support.two_daemons import World, give, new_world

INSTANCES = ("default", "everyone", "peers", "petname", "key", "nobody")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """bob offers Echo, which is public by itself, to all sorts of people."""
    with new_world(echo=False) as made:
        give(made.two, "bob", "Echo", "everyone", "everyone")
        give(made.two, "bob", "Echo", "peers", "peers")
        with made.two.client() as client:  # a petname must be somebody's when it is put into a list
            client.control(m.AddPeer(made.alice, "ally"))
            give(made.two, "bob", "Echo", "petname", "ally")
            client.control(m.RemovePeer("ally"))
        give(made.two, "bob", "Echo", "key", made.alice)
        give(made.two, "bob", "Echo", "nobody", "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
        yield made


def admitted(world: World, identity: str = "alice") -> set[str]:
    """The instances of bob's Echo that let the identity in; at all others it is denied."""
    found: set[str] = set()
    told: list[tuple[str, str, str]] = []
    daemon = world.one if identity == "alice" else world.two
    with daemon.client() as client:
        for instance in INSTANCES:
            try:
                client.call(identity, world.bob, "Echo", instance, {"message": "hi"})
                found.add(instance)
            except Denied as denied:
                told.append((denied.peer, denied.protocol, denied.instance))
    assert told == [(world.bob, "Echo", instance) for instance in INSTANCES if instance not in found]
    return found


def calls_of(world: World) -> dict[str, int]:
    (bob,) = (each for each in world.two.status().identities if each.name == "bob")
    return {binding.instance: binding.calls for binding in bob.bindings}


def test_address_book_of_the_callee_decides_and_changes_live(world: World) -> None:
    stranger = {"default", "everyone", "key"}
    with unharmed(world.one), unharmed(world.two), world.two.client() as client:
        before = calls_of(world)
        assert admitted(world) == stranger
        after = calls_of(world)
        assert {name for name in INSTANCES if after[name] != before[name]} == stranger  # protocol code saw nothing else

        client.control(m.AddPeer(world.alice, "acquaintance"))
        assert admitted(world) == {*stranger, "peers"}
        client.control(m.RemovePeer("acquaintance"))
        assert admitted(world) == stranger
        client.control(m.AddPeer(world.alice, "ally"))
        assert admitted(world) == {*stranger, "peers", "petname"}
        client.control(m.RemovePeer("ally"))
        assert admitted(world) == stranger


def test_petname_means_who_has_it_now(world: World) -> None:
    """Not who had it when the binding was made."""
    with world.two.client() as client:
        client.control(m.AddPeer(world.alice, "ally"))
        client.control(m.RemovePeer("ally"))
        client.control(m.AddPeer("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60", "ally"))
        assert "petname" not in admitted(world)
        client.control(m.RemovePeer("ally"))


def test_address_book_of_the_caller_opens_nothing(world: World) -> None:
    with world.one.client() as client:
        client.control(m.AddPeer(world.bob, "ally"))
        assert admitted(world) == {"default", "everyone", "key"}
        client.control(m.RemovePeer("ally"))


def test_identities_of_the_same_daemon_are_peers(world: World) -> None:
    carol = world.two.identity("carol", echo=False)
    assert carol
    assert admitted(world, "carol") == {"default", "everyone", "peers"}


def test_an_identity_may_use_what_is_its_own_whatever_the_list_says(world: World) -> None:
    assert admitted(world, "bob") == set(INSTANCES)
    give(world.two, "bob", "Trial", "nobody", "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
    with world.two.client() as client, client.connect("bob", world.bob, "Trial", "nobody", {"do": "who"}) as session:
        assert session.read().startswith(world.bob.encode())


def test_access_list_that_means_nothing_is_refused(world: World) -> None:
    with world.two.client() as client:
        for entry in ("", "Everyone", "*", "../x", "a" * 65, "\0", "v" * 52):
            with pytest.raises(P2PError) as caught:
                client.control(m.AddProtocol("bob", "Echo", "odd", (entry,)))
            assert caught.value.code in ("invalid-name", "invalid-key"), entry
