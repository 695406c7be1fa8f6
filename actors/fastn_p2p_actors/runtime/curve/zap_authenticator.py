"""Authenticator of the CURVE handshake of a mailbox (ZAP, ZeroMQ RFC 27).

A process of another user is rejected before it can send anything, with any key. libzmq also refuses peers of ZMTP 1.0
and 2.0 where ZAP is on. Without that, two hundred random bytes that look like such a peer abort the process
(libzmq 4.3.5, ``zmtp_engine.cpp``).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import zmq
import zmq.utils.z85

from fastn_p2p_client.ipc.transport.pyzmq.sockets import AGAIN, close_socket, context

_ENDPOINT: Final = "inproc://zeromq.zap.01"
_CURVE_FRAMES: Final = 7

log = logging.getLogger(__name__)


class PeerCredentials(NamedTuple):
    """Credentials of a process that connected to a Unix socket, from the kernel."""

    uid: int
    pid: int


class AccessRule(NamedTuple):
    """Rule of one mailbox: accept processes of users that it admits, with one of these CURVE keys."""

    name: str
    admits: Callable[[int], bool]
    roles: dict[bytes, str]
    """Role by CURVE public key (Z85)."""


def parse_peer_address(address: str) -> PeerCredentials:
    """Parse libzmq's ``Peer-Address``, for ipc ``localhost:uid:gid:pid``.

    Raises:
        ValueError: the address has another form.
    """
    _, uid, _, pid = address.rsplit(":", 3)
    return PeerCredentials(int(uid), int(pid))


class ZapAuthenticator:
    """ZAP handler of all CURVE mailboxes of a process. A ZeroMQ context has room for one handler."""

    _instance: ZapAuthenticator | None = None

    def __init__(self) -> None:
        self._rules: dict[bytes, AccessRule] = {}
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._socket = context().socket(zmq.REP)
        self._socket.bind(_ENDPOINT)
        self._descriptor = int(self._socket.fileno())
        self._loop.add_reader(self._descriptor, self._answer)

    @classmethod
    def of_process(cls) -> ZapAuthenticator:
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def add(self, rule: AccessRule) -> bytes:
        """Add a mailbox's rule, and return the ZAP domain to give to its socket."""
        domain = f"{rule.name}-{next(self._numbers)}".encode()
        self._rules[domain] = rule
        return domain

    def remove(self, domain: bytes) -> None:
        self._rules.pop(domain, None)
        if not self._rules:
            self._loop.remove_reader(self._descriptor)
            self._socket.unbind(_ENDPOINT)  # frees the name at once; closing frees it some time later
            close_socket(self._socket)
            type(self)._instance = None

    def _answer(self) -> None:
        while not self._socket.closed:
            try:
                request = self._socket.recv_multipart(zmq.NOBLOCK)
            except AGAIN:
                return
            role = self._role(request)
            verdict = (b"400", b"rejected", b"") if role is None else (b"200", b"OK", role.encode())
            self._socket.send_multipart([request[0], request[1], *verdict, b""])

    def _role(self, request: list[bytes]) -> str | None:
        """Return the role to accept the request with; None to reject it."""
        if len(request) != _CURVE_FRAMES or request[5] != b"CURVE":
            return None
        rule = self._rules.get(request[2])
        if rule is None:
            return None
        try:
            peer = parse_peer_address(request[3].decode())
        except ValueError:
            return None
        if not rule.admits(peer.uid):
            log.warning("%s: rejected process %d of user %d", rule.name, peer.pid, peer.uid)
            return None
        role = rule.roles.get(zmq.utils.z85.encode(request[6]))
        if role is None:
            log.warning("%s: rejected process %d with an unknown key", rule.name, peer.pid)
        return role
