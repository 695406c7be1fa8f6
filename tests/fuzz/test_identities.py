"""A flood of made-up identities does not disturb other peers, and makes no retired key valid again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import msgspec
import pytest

from fastn_p2p_actors.network.connections.proven_identities import MAX_STRANGERS_PER_ENDPOINT
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import encode_frame
from fastn_p2p_client.ipc.messages import AddPeer
from tests.support.daemons import eventually
from tests.support.hostile_peer import HELLO, AnyStep, Channel, Talk, Target, Until, endpoint_of, hostile_peer
from tests.support.identity_attacks import hellos, made_up_identities
from tests.support.siege import Victim, attack, besieged
from tests.support.signer import Signer
from tests.support.two_daemons import start_two_daemons

OLD, NEW, MANY = b"o" * 32, b"n" * 32, b"m" * 32
REQUEST: Final = msgspec.msgpack.encode({"message": "hi"})
_WANT: Final = 9
_REPLY: Final = 3


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with start_two_daemons() as daemons:
        yield Victim(daemons)


def target(victim: Victim) -> Target:
    status = victim.daemon.status()
    return Target(bytes.fromhex(status.endpoint), status.addresses)


def introduction(who: Signer, secret: bytes, epoch: int = 1) -> bytes:
    now = int(time.time())
    blob = who.delegation(endpoint=endpoint_of(secret), not_before=now - 10, not_after=now + 1000, epoch=epoch)
    return encode_frame(wire.Introduce(blob))


def request(victim: Victim, who: Signer, number: int = 1) -> bytes:
    return encode_frame(wire.Request(number, bytes(who.key), victim.key, "Echo", "default", 10_000), REQUEST)


def outcome(victim: Victim, who: Signer, secret: bytes, epoch: int) -> str:
    """Return how a call of this identity ends, with a transport key of this epoch."""
    steps: list[AnyStep] = [
        Channel(HELLO + introduction(who, secret, epoch) + request(victim, who)),
        Until(frames=1),
    ]
    with hostile_peer(target(victim), [Talk(steps, secret)]) as (account,):
        assert not account.stuck, account
        return account.codes[0] if account.codes else "reply"


def test_made_up_identities_over_many_endpoints_and_then_hellos(victim: Victim) -> None:
    """The identities are limited, ``status`` is complete, and the honest peer stays connected."""
    with besieged(victim) as siege:
        with attack(victim, made_up_identities, attackers=16, identities=1024) as report:
            siege.calls(60)
            status = victim.daemon.status()
        assert report.counts["identities"] > MAX_STRANGERS_PER_ENDPOINT
        assert [each for each in status.warnings if not each.startswith("the sandbox of")] == []  # an older kernel
        totals = [each.identities_total for each in status.connections]
        assert max(totals) <= MAX_STRANGERS_PER_ENDPOINT
        assert sum(totals) > len(totals)
        with attack(victim, hellos, attackers=8):
            siege.calls(60)


def test_a_caller_that_was_given_up_is_asked_to_show_itself_and_served(victim: Victim) -> None:
    """An endpoint has more identities than the limit, and the first of them calls."""
    first = Signer("first")
    others = b"".join(introduction(Signer(f"other {number}"), MANY) for number in range(MAX_STRANGERS_PER_ENDPOINT))
    steps: list[AnyStep] = [
        Channel(HELLO + introduction(first, MANY) + request(victim, first, 1)),
        Until(frames=1),
        Channel(others + request(victim, first, 2)),
        Until(frames=2),
    ]
    again: list[AnyStep] = [Channel(introduction(first, MANY)), Until(frames=3)]
    with hostile_peer(target(victim), [Talk(steps, MANY, later=again)]) as accounts:
        assert accounts[0].answers == [[_REPLY, 1], [_WANT, bytes(first.key).hex()]]
        accounts.go_on()
        assert accounts[0].answers[2:] == [[_REPLY, 2]]


def test_a_retired_transport_key_stays_retired_after_a_flood_and_a_crash(victim: Victim) -> None:
    """The identity is in the address book, and none of those that flood is."""
    moved = Signer("moved")
    with victim.daemon.client() as client:
        client.control(AddPeer(moved.key.id52, "moved"))
    assert outcome(victim, moved, OLD, 3) == "reply"
    assert outcome(victim, moved, NEW, 4) == "reply"
    assert outcome(victim, moved, OLD, 3) == "epoch-retired"
    with attack(victim, made_up_identities, identities=512), victim.daemons.one.client() as client:
        for _ in range(20):
            client.call("alice", victim.daemons.bob, "Echo", request={"message": "hi"})
    before = victim.daemon.kill_actor("network")
    victim.daemon.wait_actor("network", before)
    eventually(lambda: any(each.online for each in victim.daemon.status().identities), "bob is online again")
    assert outcome(victim, moved, OLD, 3) == "epoch-retired"
    assert outcome(victim, moved, NEW, 4) == "reply"
