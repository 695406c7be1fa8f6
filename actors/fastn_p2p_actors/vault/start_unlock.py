"""Unlocking before the daemon starts: a process of its own opens the slot, and hands over the page with the master key.

The command ``daemon`` asks for the passphrase while the terminal is still free. Neither it nor the supervisor ever maps
the page: the supervisor keeps the descriptor for the vault, as after a crash of the vault.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import AbstractContextManager
from typing import Final

import msgspec

from fastn_p2p_client.errors import InternalError, P2PError, VaultNotEncrypted
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import UNDECODABLE, Ack, ErrorReply, encode
from fastn_p2p_client.ipc.request_channel import check_reply

from ..runtime.process_setup import die_with_parent, forbid_core_files, make_undumpable
from ..runtime.separate_users import as_user
from .attempts import AttemptLog
from .key_lock import ATTEMPTS_FILE
from .locked_memory import LockedMemory
from .owner_messages import MAX_PACKET, SlotKind
from .passphrase import Secret
from .slot_opener import SlotOpener
from .slots import SlotFile

_reply: Final[msgspec.msgpack.Decoder[Ack | ErrorReply]] = msgspec.msgpack.Decoder(Ack | ErrorReply)


def slots_of_kind(home: Home, kind: SlotKind) -> list[str]:
    """Return the names of the vault's slots of this kind. Raises HomeUnusable."""
    with _as_owner(home):
        slots = SlotFile(home.vault, LockedMemory())
        slots.load()
    return [slot.name for slot in slots.of_kind(kind)]


def open_vault_page(home: Home, secret: int, *, by_machine: bool = False) -> int:
    """Return the descriptor of a page with the master key. Takes most of a second for a passphrase.

    Call it in a process without threads.

    Args:
        secret: descriptor that delivers the secret of a slot.
        by_machine: take only a random key, which a machine keeps. The attempt does not count.

    Raises:
        P2PError: the secret opens no slot, comes too early, or the file of the slots cannot be used.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        _run_child(home, secret, theirs, by_machine=by_machine)
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
    check_reply(reply, Ack, "the process that opens the vault")
    return descriptors[0]


def _run_child(home: Home, secret: int, channel: socket.socket, *, by_machine: bool) -> None:
    """Open the slot, send the reply and the descriptor, and end. Never returns."""
    try:
        die_with_parent()
        make_undumpable()
        forbid_core_files()
        try:
            with _as_owner(home):
                descriptor = _open_page(home, secret, by_machine=by_machine)
            socket.send_fds(channel, [encode(Ack())], [descriptor])
        except P2PError as error:
            channel.send(encode(ErrorReply.of(error)))
        except Exception as error:
            channel.send(encode(ErrorReply.of(InternalError(reason=f"{type(error).__name__}: {error}"))))
    finally:
        os._exit(0)


def _as_owner(home: Home) -> AbstractContextManager[None]:
    """Read and write the vault's files as their owner, who is not root if the daemon's processes have own users."""
    found = home.vault.stat()
    return as_user(found.st_uid, found.st_gid)


def _open_page(home: Home, descriptor: int, *, by_machine: bool) -> int:
    slots = SlotFile(home.vault, LockedMemory(hidden=True))
    slots.load()
    if not slots.exists:
        raise VaultNotEncrypted
    attempts = AttemptLog(home.vault / ATTEMPTS_FILE, time.time)
    attempts.load()
    opener = SlotOpener(slots, attempts)
    with Secret() as secret:
        secret.read(descriptor)
        opened = opener.open_by_machine(secret) if by_machine else opener.open(secret)
        return opened.page.descriptor
