"""Requests of a command to the vault's own socket, with the descriptors that carry passphrases."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from fastn_p2p_actors.runtime.mailbox import CREDENTIALS
from fastn_p2p_actors.vault.owner_messages import MAX_PACKET, OwnerReply
from fastn_p2p_client.errors import DaemonBusy, DaemonNotRunning, DeadlineExceeded, HomeUnusable
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import RequestFor, encode
from fastn_p2p_client.ipc.request_channel import check_reply, decode_answer

ReplyT = TypeVar("ReplyT")

TIMEOUT: Final = 120.0
"""Seconds for a reply. Encrypting the keys of ten thousand identities takes a minute on a slow disk."""

_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(OwnerReply)


def request_vault(home: Path | None, message: RequestFor[ReplyT], *descriptors: int) -> ReplyT:
    """Send a request of ``owner_messages`` to the vault of ``home``, and return its reply.

    Args:
        descriptors: what the request takes; they stay open here.

    Raises:
        DaemonNotRunning, DaemonBusy, DeadlineExceeded: the vault did not answer.
        HomeUnusable: the socket belongs to another user.
        P2PError: the error reply of the vault.
    """
    found = Home.find(home)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(TIMEOUT)
        try:
            path = found.find_mailbox("keys")
            _connect(connection, path)
            _, uid, _ = CREDENTIALS.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            )
            if uid not in (0, os.getuid()):
                raise HomeUnusable(path=str(path), reason=f"user {uid} serves it")
            socket.send_fds(connection, [encode(message)], descriptors)
            packet = connection.recv(MAX_PACKET)
        except TimeoutError:
            raise DeadlineExceeded(seconds=TIMEOUT) from None
        except OSError:
            packet = b""
    if not packet:
        raise DaemonBusy(actor="vault") if _runs(found) else DaemonNotRunning(home=str(found.path))
    return check_reply(decode_answer(_decoder, packet), message.reply_type, "the vault")


def _connect(connection: socket.socket, path: Path) -> None:
    try:
        connection.connect(str(path))
    except PermissionError:
        raise HomeUnusable(path=str(path), reason="only its owner may change the vault; use sudo") from None


def _runs(home: Home) -> bool:
    with contextlib.suppress(OSError):
        return home.daemon_pid() is not None
    return False
