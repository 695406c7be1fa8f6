"""The user at the other end of a TCP connection of this machine, from the kernel (sock_diag(7))."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI2s2s16s16sI8s")
_NO_COOKIE: Final = b"\xff" * 8
_ALL_STATES: Final = 0xFFFFFFFF
_OWNER: Final = struct.Struct("=II")
_OWNER_OFFSET: Final = _HEADER.size + 4 + 48 + 12
"""Position of uid and inode: behind the fields of inet_diag_msg before them."""


def user_of_client(connection: socket.socket) -> int | None:
    """Return the uid of the process that has opened an accepted IPv4 connection; None if it has closed it already.

    Raises:
        OSError: the kernel does not say.
    """
    here, there = connection.getsockname(), connection.getpeername()
    request = _REQUEST.pack(
        socket.AF_INET,
        socket.IPPROTO_TCP,
        0,
        _ALL_STATES,
        there[1].to_bytes(2, "big"),
        here[1].to_bytes(2, "big"),
        socket.inet_aton(there[0]).ljust(16, b"\0"),
        socket.inet_aton(here[0]).ljust(16, b"\0"),
        0,
        _NO_COOKIE,
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as diag:
        diag.sendto(
            _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + request, (0, 0)
        )
        reply = diag.recv(4096)
    if _HEADER.unpack_from(reply)[1] == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", reply, _HEADER.size)[0]
        if code == errno.ENOENT:
            return None
        raise OSError(code, os.strerror(code))
    uid, inode = _OWNER.unpack_from(reply, _OWNER_OFFSET)
    return uid if inode else None  # a closed socket has no file, and may be shown as root's
