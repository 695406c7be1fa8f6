"""A binding claims its calls only if each process that serves it does: any of them may get a call."""

from __future__ import annotations

from typing import Any, cast

from fastn_p2p_actors.network.serving.registry import OnlineIdentity, RegisteredBinding, Registry
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.keys import PublicKey
from tests.support.signer import Signer

BOB = Signer("bob").key
ACCESS = cast(Any, None)


def claims(registry: Registry) -> bool:
    found = registry.find(bytes(BOB), "Work", "default")
    assert isinstance(found, RegisteredBinding)
    return found.claims_calls


def test_a_program_that_does_not_claim_counts_for_all() -> None:
    registry = Registry()
    claiming, other = Sender(0, 0), Sender(1, 1)
    registry.serve_by_program("bob", "Work", "default", ACCESS, claiming, 5, claims_calls=True)
    registry.add_identity(OnlineIdentity("bob", PublicKey(bytes(BOB)), Sender(2, 2)))
    assert claims(registry), "also if it was registered before the identity came online"
    registry.serve_by_program("bob", "Work", "default", ACCESS, other, 5)
    assert not claims(registry)
    registry.serve_by_program("bob", "Work", "default", ACCESS, other, 5, claims_calls=True)
    assert claims(registry), "its last registration counts"
    registry.serve_by_program("bob", "Work", "default", ACCESS, other, 5)
    registry.remove_sender(other)
    assert claims(registry)


def test_the_process_of_the_identity_says_so_again_after_each_change() -> None:
    registry = Registry()
    process = Sender(0, 0)
    bob = OnlineIdentity("bob", PublicKey(bytes(BOB)), process)
    registry.add_identity(bob)
    registry.serve(bob, "Work", "default", ACCESS, process, claims_calls=True)
    assert claims(registry)
    registry.serve(bob, "Work", "default", ACCESS, process)
    assert not claims(registry)
