"""Hostile protocol: its code runs in an identity process and attacks the daemon that hosts it."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec
import zmq

from fastn_p2p_actors.identity.network_registration import NetworkRegistration
from fastn_p2p_actors.runtime import control_channel
from fastn_p2p_actors.runtime.actor import ActorContext
from fastn_p2p_actors.vault import messages as vault
from fastn_p2p_actors.vault.owner_messages import LockVault, OwnerReply
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import ErrorReply, encode
from fastn_p2p_client.protocol import Protocol, request
from tests.support.raw_connections import Keys, Raw

__all__ = ["Attack", "Hostile"]

T = TypeVar("T")


class Attack(msgspec.Struct):
    """Order to the hostile protocol."""

    do: Literal["pid", "vault", "vault owner", "grant", "supervisor requests", "control channel garbage"]
    data: bytes = b""


class Hostile(Protocol):
    """Hostile protocol. Every caller may order an attack; the reply is its outcome."""

    public = True

    @request
    async def attack(self, attack: Attack) -> Any:
        home = Home.find()
        if attack.do == "vault":
            public, _ = zmq.curve_keypair()
            outcomes: list[str | int | None] = []
            for keys in (None, Keys.made_up(public.decode())):
                with Raw(home.mailbox("vault"), keys) as raw:
                    outcomes += [
                        raw.request(message, timeout=0.2) for message in (vault.ListKeys(), vault.GetTransport())
                    ]
            return outcomes
        if attack.do == "vault owner":
            return [_owner_reply(home), _in_orphan(lambda: _owner_reply(home))]
        if attack.do == "grant":
            return vars(_object_of(NetworkRegistration))["_grant"]
        if attack.do == "supervisor requests":
            context = _object_of(ActorContext)
            outcomes = []
            for ask in (
                control_channel.StopIdentity("bob"),
                control_channel.StartIdentity("bob"),
                control_channel.EnsureOnline(()),
                control_channel.GetProcesses(),
            ):
                try:
                    outcomes.append(type(await context.request_from_supervisor(ask, 5)).__name__)
                except Exception as error:
                    outcomes.append(type(error).__name__)
            return outcomes
        if attack.do == "control channel garbage":
            held = vars(_object_of(ActorContext))["_channel"]
            assert isinstance(held, socket.socket)
            held.send(attack.data)
        return os.getpid()


def _object_of(kind: type[T]) -> T:
    """Return an object of this type: nothing in a process is hidden from the code in it."""
    return next(each for each in gc.get_objects() if isinstance(each, kind))


def _owner_reply(home: Home) -> str:
    """Return the code of the reply at the socket of the vault's owner."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(60)
        connection.connect(str(home.mailbox("keys")))
        connection.send(encode(LockVault()))
        reply = msgspec.msgpack.decode(connection.recv(65536), type=OwnerReply)
    return reply.code if isinstance(reply, ErrorReply) else type(reply).__name__


def _in_orphan(work: Callable[[], str]) -> str:
    """Return the result of work in a process of another session, whose parent has ended."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        parent = os.getpid()
        if os.fork() == 0:
            os.setsid()
            while os.getppid() == parent:
                continue
            os.write(writer, work().encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as result:  # noqa: PTH123
        return result.read().decode()
