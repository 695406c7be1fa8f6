"""Delegations over a real connection: a hostile daemon shows one that does not hold, and is told just why."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import msgspec
import pytest

from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import encode_frame
from fastn_p2p_client.keys import PublicKey
from tests.support.daemons import Daemon
from tests.support.hostile_peer import (
    HELLO,
    SECRET,
    Account,
    AnyStep,
    Channel,
    Talk,
    Target,
    Until,
    endpoint_of,
    hostile_peer,
)
from tests.support.raw_connections import unharmed
from tests.support.signer import DAY, Signer

MALLORY: Final = Signer("mallory")
VICTIM: Final = Signer("victim")
ENDPOINT: Final = endpoint_of(SECRET)
OTHER_SECRET: Final = b"s" * 32
REQUEST: Final = msgspec.msgpack.encode({"message": "hi"})


class Service:
    """A daemon that offers Echo to everyone."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon.start()
        self.key = bytes(PublicKey(daemon.identity("alice")))
        self.locate()

    def locate(self) -> None:
        status = self.daemon.status()
        self.target = Target(bytes.fromhex(status.endpoint), status.addresses)

    def request(self, signer: Signer = MALLORY, number: int = 1) -> bytes:
        return encode_frame(wire.Request(number, bytes(signer.key), self.key, "Echo", "default", 10_000), REQUEST)

    def outcome(self, blob: bytes | None, signer: Signer = MALLORY, secret: bytes = SECRET) -> str:
        """Return the outcome of a request as ``signer`` after this introduction."""
        with hostile_peer(self.target, [self.talk(blob, signer, secret)]) as (account,):
            return outcome_of(account)

    def talk(self, blob: bytes | None, signer: Signer = MALLORY, secret: bytes = SECRET) -> Talk:
        introduction = b"" if blob is None else encode_frame(wire.Introduce(blob))
        steps: list[AnyStep] = [Channel(HELLO + introduction + self.request(signer)), Until(frames=1)]
        return Talk(steps, secret)


def outcome_of(account: Account) -> str:
    assert not account.stuck, account
    return account.codes[0] if account.codes else "reply"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("delegations")
    daemon = Daemon(folder / "home", folder / "hosts")
    try:
        yield Service(daemon)
    finally:
        daemon.clean_up()


def delegation(signer: Signer = MALLORY, *, starts: int = -10, ends: int = DAY, **fields: object) -> bytes:
    now = int(time.time())
    return signer.delegation(**{"endpoint": ENDPOINT, "not_before": now + starts, "not_after": now + ends, **fields})  # type: ignore[arg-type]


def altered(blob: bytes, position: int) -> bytes:
    changed = bytearray(blob)
    changed[position] ^= 1
    return bytes(changed)


Make: TypeAlias = Callable[[bytes], bytes | None]
"""A delegation for an endpoint."""

CASES: Final[dict[str, tuple[Make, str]]] = {
    "one that holds": (lambda to: delegation(endpoint=to), "reply"),
    "none": (lambda _: None, "bad-message"),
    "one that has ended": (lambda to: delegation(endpoint=to, starts=-DAY, ends=-100), "delegation-expired"),
    "one that has just ended, by a clock that is late": (
        lambda to: delegation(endpoint=to, starts=-DAY, ends=-1),
        "reply",
    ),
    "one that has not begun": (lambda to: delegation(endpoint=to, starts=1000), "delegation-not-yet-valid"),
    "one for another endpoint": (lambda _: delegation(endpoint=ENDPOINT), "wrong-endpoint"),
    "one by another key": (lambda to: delegation(endpoint=to, identity=bytes(VICTIM.key)), "bad-message"),
    "one of another identity": (lambda to: delegation(VICTIM, endpoint=to), "bad-message"),
    "one with another signature": (lambda to: altered(delegation(endpoint=to), -1), "bad-signature"),
    "one made over to another endpoint": (
        lambda to: delegation(endpoint=ENDPOINT).replace(ENDPOINT, to),
        "bad-signature",
    ),
    "one that is cut off": (lambda to: delegation(endpoint=to)[:-1], "bad-message"),
    "one with something behind it": (lambda to: delegation(endpoint=to) + b"\0", "bad-message"),
    "one signed as a record": (
        lambda to: MALLORY.sign("delegation", [1, bytes(MALLORY.key), to], prefix="record"),
        "bad-message",
    ),
    "one for something else": (lambda to: delegation(endpoint=to, capabilities=("listen",)), "bad-message"),
    "one that lasts too long": (lambda to: delegation(endpoint=to, ends=2 * DAY + 60), "bad-message"),
    "one for ever": (lambda to: delegation(endpoint=to, not_after=2**40 - 1), "bad-message"),
    "one for ever that has long begun": (
        lambda to: delegation(endpoint=to, not_before=0, not_after=2**40 - 1),
        "bad-message",
    ),
    "one that begins at the end of time": (
        lambda to: delegation(endpoint=to, not_before=2**40 - 2, not_after=2**40 - 1),
        "delegation-not-yet-valid",
    ),
    "one that ends beyond all times": (lambda to: delegation(endpoint=to, not_after=2**63), "bad-message"),
    "one that lasts as long as it may": (lambda to: delegation(endpoint=to, ends=2 * DAY - 60), "reply"),
    "one that ends before it begins": (lambda to: delegation(endpoint=to, starts=100, ends=-100), "bad-message"),
    "one of another version": (lambda to: delegation(endpoint=to, version=2), "bad-message"),
    "a record": (lambda _: MALLORY.record(), "bad-message"),
    "a large one": (lambda _: b"\xc4\xff" + bytes(60_000), "bad-message"),
    "nothing": (lambda _: b"", "bad-message"),
}


def test_request_is_refused_with_what_is_wrong_with_the_delegation(service: Service) -> None:
    """Each from an endpoint of its own: what an endpoint has shown once is known of it."""
    secrets = {case: hashlib.blake2b(case.encode(), digest_size=32).digest() for case in CASES}
    talks = [service.talk(make(endpoint_of(secrets[case])), secret=secrets[case]) for case, (make, _) in CASES.items()]
    with unharmed(service.daemon), hostile_peer(service.target, talks) as accounts:
        outcomes = {case: outcome_of(account) for case, account in zip(CASES, accounts, strict=True)}
    assert outcomes == {case: expected for case, (_, expected) in CASES.items()}


def test_an_identity_cannot_be_borrowed(service: Service) -> None:
    """A peer that has proven one identity cannot call as another one, not even as the daemon's own."""
    with hostile_peer(service.target, [service.talk(delegation(), VICTIM)]) as (account,):
        assert outcome_of(account) == "bad-message"
    forged = encode_frame(wire.Request(1, service.key, service.key, "Echo", "default", 10_000), REQUEST)
    steps: list[AnyStep] = [Channel(HELLO + encode_frame(wire.Introduce(delegation())) + forged), Until(frames=1)]
    with hostile_peer(service.target, [Talk(steps)]) as (account,):
        assert outcome_of(account) == "bad-message"


def test_a_higher_epoch_once_seen_retires_the_lower_ones(service: Service) -> None:
    """From whichever endpoint, also after a restart; other lineages and other identities keep theirs."""
    moved = Signer("moved")
    line = b"moving-lineage-1"
    old = delegation(moved, epoch=3, lineage=line)
    new = delegation(moved, epoch=4, endpoint=endpoint_of(OTHER_SECRET), lineage=line)
    assert service.outcome(old, moved) == "reply"
    assert service.outcome(new, moved, OTHER_SECRET) == "reply"
    assert service.outcome(old, moved) == "epoch-retired"
    assert service.outcome(delegation(moved, epoch=3, lineage=b"another-lineage1"), moved) == "reply"
    assert service.outcome(delegation(epoch=3, lineage=line)) == "reply"
    assert service.daemon.stop() == 0
    service.daemon.start()
    service.locate()
    assert service.outcome(old, moved) == "epoch-retired"
    assert service.outcome(new, moved, OTHER_SECRET) == "reply"


def test_a_retired_endpoint_is_cut_off_in_the_middle_of_a_connection(service: Service) -> None:
    """A stolen transport key is useless as soon as its successor is seen, not a day later."""
    robbed = Signer("robbed")
    first = Channel(HELLO + encode_frame(wire.Introduce(delegation(robbed, epoch=1))) + service.request(robbed, 1))
    thief = Talk([first, Until(frames=1)], later=[Channel(service.request(robbed, 2)), Until(frames=2)])
    with hostile_peer(service.target, [thief]) as accounts:
        assert outcome_of(accounts[0]) == "reply"
        owner = delegation(robbed, epoch=2, endpoint=endpoint_of(OTHER_SECRET))
        assert service.outcome(owner, robbed, OTHER_SECRET) == "reply"
        accounts.go_on()
        assert outcome_of(accounts[0]) == "epoch-retired"
