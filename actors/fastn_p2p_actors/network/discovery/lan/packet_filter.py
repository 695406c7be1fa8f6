"""Packet filter in the kernel: drops packets of other daemons that are about identities of no interest here.

Problem: on a LAN with 500 daemons that search every ten seconds, each gets 100 packets per second and needs none of
them. Waking for them and reading them took 1 % of a core, most of it in the kernel and the event loop.

Idea: classic BPF (socket(7), SO_ATTACH_FILTER). A packet of a daemon has the label of its identity at a fixed place,
unless it asks for several. Four characters of it are compared with those of the labels of interest. Whatever has
another form passes, also everything of other programs: ``messages.labels_in`` looks at it.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection
from typing import Final

MAX_LABELS: Final = 200
"""Labels of interest above which every packet passes: a jump of BPF reaches 255 instructions."""

_INSTRUCTION: Final = struct.Struct("@HBBI")
"""``struct sock_filter``: code, jumps if true and if false, operand."""
_PROGRAM: Final = struct.Struct("@HP")
"""``struct sock_fprog``: number of instructions, and their place."""
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x30, 0x28, 0x20, 0x15, 0x45, 0x06

_DNS: Final = 8
"""Offset of the DNS message: a filter of a UDP socket sees the UDP header."""
_FLAGS, _QUESTIONS, _ANSWERS, _OTHERS, _NAME = _DNS + 2, _DNS + 4, _DNS + 6, _DNS + 8, _DNS + 12
_NO_QUERY: Final = 0xF8
_SUBTYPE: Final = 0x155F
"""Length of the first name, 21, and ``_``."""
_ANSWERS_OF_A_DAEMON: Final = 3


def apply_filter(sock: socket.socket, labels: Collection[bytes] | None) -> None:
    """Let packets about these labels pass, and all packets of other forms. None: all packets.

    Raises:
        OSError: the kernel does not take the filter.
    """
    if labels is None or len(labels) > MAX_LABELS:
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        except FileNotFoundError:  # it has none
            return
        return
    instructions = _instructions(sorted({label[:4] for label in labels}))
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*each) for each in instructions))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _PROGRAM.pack(len(instructions), ctypes.addressof(code)))


def _instructions(prefixes: list[bytes]) -> list[tuple[int, int, int, int]]:
    """Return the program. Jumps count the instructions that are left out."""
    count = len(prefixes)
    to_pass = count + 1
    """From the comparison before the first label: behind the labels, and the instruction that drops."""
    head = [
        (_LOAD_HALF, 0, 0, _QUESTIONS),
        (_IF_EQUAL, 0, 2, 1),  # one question: look at the flags, else at the answers
        (_LOAD_BYTE, 0, 0, _FLAGS),
        (_IF_ANY_BIT, to_pass + 8, 5, _NO_QUERY),  # a query: look at its name
        (_IF_EQUAL, 0, to_pass + 7, 0),
        (_LOAD_HALF, 0, 0, _ANSWERS),
        (_IF_EQUAL, 0, to_pass + 5, _ANSWERS_OF_A_DAEMON),
        (_LOAD_WORD, 0, 0, _OTHERS),
        (_IF_EQUAL, 0, to_pass + 3, 0),
        (_LOAD_HALF, 0, 0, _NAME),
        (_IF_EQUAL, 0, to_pass + 1, _SUBTYPE),
        (_LOAD_WORD, 0, 0, _NAME + 2),
    ]
    compared = [(_IF_EQUAL, count - number, 0, int.from_bytes(prefix, "big")) for number, prefix in enumerate(prefixes)]
    return [*head, *compared, (_RETURN, 0, 0, 0), (_RETURN, 0, 0, 0xFFFFFFFF)]
