"""Inherited sockets of a forked child: each is replaced, and no other descriptor is."""

from __future__ import annotations

import os
import socket

from fastn_p2p_client.affinity import Descriptor, sever


def test_an_inherited_socket_is_replaced_by_one_without_a_peer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sever(Descriptor.of(ours.fileno()))
        assert theirs.recv(1) == b"", "the only descriptor of the other end is gone"
        assert ours.recv(1) == b"", "the number is in use, and its peer is gone"


def test_a_number_that_stands_for_another_file_by_now_is_left_alone() -> None:
    """The loop has closed the descriptor, its socket object does not know yet, and a pipe reuses the number."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        noted = Descriptor.of(ours.fileno())
        reader, writer = os.pipe()
        os.dup2(writer, noted.number)
        os.close(writer)
        sever(noted)
        os.write(noted.number, b"x")
        assert os.read(reader, 1) == b"x"
        os.close(reader)


def test_a_number_that_stands_for_nothing_is_left_free() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    noted = Descriptor.of(ours.fileno())
    ours.close()
    sever(noted)
    assert not noted.is_current()
