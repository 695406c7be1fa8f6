"""The kernel says who has opened a connection of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from fastn_p2p.protocols.web.socket_owner import user_of_client

CONNECT = (
    "import encodings.idna, os, socket, sys; os.setuid(int(sys.argv[2])); "
    "made = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); made.recv(1)"
)


def test_a_connection_of_this_user() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        with listener.accept()[0] as accepted:
            assert user_of_client(accepted) == os.getuid()
            client.shutdown(socket.SHUT_WR)
            assert user_of_client(accepted) == os.getuid()
            client.close()
            assert user_of_client(accepted) is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_connection_of_another_user() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        other = subprocess.Popen([sys.executable, "-c", CONNECT, str(listener.getsockname()[1]), "1234"])
        with listener.accept()[0] as accepted:
            assert user_of_client(accepted) == 1234
        assert other.wait(60) == 0
