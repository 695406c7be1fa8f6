"""Unlocking before the daemon starts: a process of its own opens the slot, and hands over the page with the master key.

The command ``daemon`` asks for the passphrase while the terminal is still free. Neither it nor the supervisor ever maps
the page: the supervisor keeps the descriptor for the vault, as after a crash of the vault.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import Final

import msgspec

from fastn_p2p_client.errors import InternalError, P2PError, VaultNotEncrypted
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import UNDECODABLE, Ack, ErrorReply, encode

from ..runtime.process_setup import die_with_parent, forbid_core_files, make_undumpable
from .attempts import AttemptLog
from .key_lock import ATTEMPTS_FILE, open_slot
from .locked_memory import LockedMemory
from .owner_messages import MAX_PACKET
from .passphrase import Secret
from .slots import SlotFile

_reply: Final[msgspec.msgpack.Decoder[Ack | ErrorReply]] = msgspec.msgpack.Decoder(Ack | ErrorReply)


def open_vault_page(home: Home, passphrase: int) -> int:
    """Return the descriptor of a page with the master key. Takes most of a second.

    Call it in a process without threads.

    Args:
        passphrase: descriptor that delivers the passphrase.

    Raises:
        P2PError: the passphrase opens no slot, comes too early, or the file of the slots cannot be used.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        _run_child(home, passphrase, theirs)
    theirs.close()
    try:
        with ours:
            packet, descriptors, _, _ = socket.recv_fds(ours, MAX_PACKET, 1, socket.MSG_CMSG_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)  # it has ended, unless this process was interrupted
        os.waitpid(child, 0)
    try:
        reply = _reply.decode(packet)
    except UNDECODABLE:
        raise InternalError(reason="the process that opens the vault has ended") from None
    if isinstance(reply, ErrorReply):
        raise reply.error()
    return descriptors[0]


def _run_child(home: Home, passphrase: int, channel: socket.socket) -> None:
    """Open the slot, send the reply and the descriptor, and end. Never returns."""
    try:
        die_with_parent()
        make_undumpable()
        forbid_core_files()
        try:
            descriptor = _open_page(home, passphrase)
            socket.send_fds(channel, [encode(Ack())], [descriptor])
        except P2PError as error:
            channel.send(encode(ErrorReply.of(error)))
        except Exception as error:
            channel.send(encode(ErrorReply.of(InternalError(reason=f"{type(error).__name__}: {error}"))))
    finally:
        os._exit(0)


def _open_page(home: Home, passphrase: int) -> int:
    slots = SlotFile(home.vault, LockedMemory(hidden=True))
    slots.load()
    if not slots.exists:
        raise VaultNotEncrypted
    attempts = AttemptLog(home.vault / ATTEMPTS_FILE, time.time)
    attempts.load()
    with Secret() as secret:
        secret.read(passphrase)
        return open_slot(slots, attempts, secret).descriptor
