"""Questions to a daemon, each in all the ways in which it can be asked, and whether an error is the one expected."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

import fastn_p2p_client.errors as e
from fastn_p2p_client import Client, sync
from fastn_p2p_client.ipc import messages as m
from tests.support.daemons import Daemon

__all__ = ["STRANGER", "Call", "Command", "assert_same_error", "known_nowhere", "ticket_of"]

STRANGER: Final = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
"""ID52 of an unknown identity."""


@dataclass
class Call:
    """A call from daemon ``one``."""

    peer: str
    protocol: str = "Echo"
    instance: str = "default"
    request: Any = field(default_factory=lambda: {"message": "hi"})
    identity: str | None = "alice"
    timeout: float = 10.0
    command: str = ""

    def arguments(self) -> list[str]:
        identity = [] if self.identity is None else ["--as", self.identity]
        command = ["--command", self.command] if self.command else []
        return ["call", self.peer, self.protocol, self.instance, *identity, *command, "--timeout", str(self.timeout)]

    def stdin(self) -> str | None:
        return json.dumps(self.request)

    def blocking(self, client: sync.Client) -> Any:
        return client.call(
            self.identity, self.peer, self.protocol, self.instance, self.request,
            command=self.command, timeout=self.timeout,
        )  # fmt: skip

    async def awaiting(self, client: Client) -> Any:
        return await client.call(
            self.identity, self.peer, self.protocol, self.instance, self.request,
            command=self.command, timeout=self.timeout,
        )  # fmt: skip


@dataclass
class Command:
    """A command to daemon ``one``, and the same as a message."""

    line: list[str]
    message: m.RequestFor[m.Message]
    payload: bytes = b""

    def arguments(self) -> list[str]:
        return self.line

    def stdin(self) -> str | None:
        return None

    def blocking(self, client: sync.Client) -> Any:
        return client.control(self.message, self.payload)

    async def awaiting(self, client: Client) -> Any:
        return await client.control(self.message, self.payload)


def assert_same_error(error: object, expected: Exception) -> None:
    """Assert that the error has the expected class, code, fields and text."""
    assert type(error) is type(expected), repr(error)
    if isinstance(expected, e.P2PError):
        assert isinstance(error, e.P2PError)
        assert (error.code, error.fields()) == (expected.code, expected.fields())
    else:
        assert isinstance(error, e.ApplicationError)
        assert isinstance(expected, e.ApplicationError)
        assert (error.kind, error.message, error.payload) == (expected.kind, expected.message, expected.payload)
    assert str(error) == str(expected)


def ticket_of(daemon: Daemon, name: str) -> str:
    with daemon.client() as client:
        reply = client.control(m.GetTicket(name))
    assert isinstance(reply, m.TicketText)
    return reply.ticket


def known_nowhere() -> e.PeerUnknown:
    """Return the error for ``STRANGER`` of a daemon in network mode local."""
    error = e.PeerUnknown(peer=STRANGER)
    error.detail = "not asked: LAN (off in network mode local), directories (off in network mode local)"
    return error
