"""Calls of a network process, whose mailbox, router, address book and access lists are stubs."""

from __future__ import annotations

from typing import Any, cast

from fastn_p2p_actors.network.calls.incoming import IncomingCalls
from fastn_p2p_actors.network.calls.outgoing import OutgoingCalls
from fastn_p2p_actors.network.connections.payload_memory import PayloadMemory
from fastn_p2p_actors.network.discovery.targets import TargetFinder
from fastn_p2p_actors.network.serving.registration_grace import RegistrationGrace
from fastn_p2p_actors.network.serving.registry import Registry

__all__ = ["StubNetwork"]


class StubNetwork:
    """Registry, grace period, payload memory and calls, joined as in the network process.

    A subclass stubs the mailbox (``send``, ``answer``) and the router (``parse_peer``).
    """

    def __init__(self) -> None:
        self.stub = cast(Any, self)
        self.payloads = PayloadMemory()
        self.registry, self.grace = Registry(), RegistrationGrace()
        self.requests = IncomingCalls(
            self.stub, self.registry, self.stub, self.grace, self.stub, self.payloads, self.stub
        )
        self.targets = TargetFinder(self.registry, self.stub, self.grace)
        self.calls = OutgoingCalls(self.stub, self.targets, self.requests, self.payloads)

    def close(self) -> None:
        self.targets.close()
        self.calls.close()
        self.requests.close()

    def name_of(self, _key: bytes) -> str:
        return ""

    def admits(self, _key: bytes) -> bool:
        return True
