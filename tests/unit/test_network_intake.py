"""What large payloads of all peers may take together."""

from __future__ import annotations

from fastn_p2p_actors.network.intake import Intake


class Peer:
    def __init__(self) -> None:
        self.shed_for: list[str] = []

    def shed(self, reason: str) -> None:
        self.shed_for.append(reason)


def test_connection_that_holds_most_ends_when_there_is_too_much() -> None:
    intake, hoarder, honest = Intake(limit=100), Peer(), Peer()
    intake.take(honest, 20)
    for _ in range(8):
        intake.take(hoarder, 10)
    assert not hoarder.shed_for
    intake.take(honest, 1)
    assert len(hoarder.shed_for) == 1
    intake.give_back(hoarder, 80)
    intake.take(honest, 50)
    assert not honest.shed_for


def test_what_is_complete_counts_no_more() -> None:
    intake, peer = Intake(limit=100), Peer()
    for _ in range(10):
        intake.take(peer, 60)
        intake.take(peer, 40)
        intake.give_back(peer, 100)
    assert (intake.total, peer.shed_for) == (0, [])
    intake.take(peer, 101)
    assert peer.shed_for
