"""The supervisor opens for a child what its role or its owner allows, in the child's name, and nothing else."""

from __future__ import annotations

import ctypes
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastn_p2p_actors.runtime.control_channel import OpenConfig, OpenSocket
from fastn_p2p_actors.runtime.identity_sockets import identity_label
from fastn_p2p_actors.runtime.mailbox import CREDENTIALS
from fastn_p2p_actors.runtime.process_setup import PR_SET_DUMPABLE
from fastn_p2p_actors.runtime.separate_users import ProcessAccount
from fastn_p2p_actors.storage.permission_store import PermissionStore
from fastn_p2p_client.errors import Forbidden
from fastn_p2p_client.home import Home
from fastn_p2p_supervisor.descriptor_broker import DescriptorBroker


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:  # short enough for its sockets
        for each in ("run", "identities/alice", "identities/bob"):
            Path(name, each).mkdir(parents=True)
        yield Home(Path(name))


@pytest.fixture
def listener(home: Home) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(home.control_socket))
        made.listen()
        yield made


def test_the_receiver_learns_whose_connection_it_is(home: Home, listener: socket.socket) -> None:
    with socket.socket(fileno=DescriptorBroker(home).open("identity-alice", OpenSocket(str(home.control_socket)))):
        accepted, address = listener.accept()
        accepted.close()
    assert identity_label(address) == "alice"


def test_a_socket_that_was_granted_gets_an_ordinary_connection(home: Home) -> None:
    broker, path = DescriptorBroker(home), str(home.path / "web")
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(path)
        service.listen()
        with pytest.raises(Forbidden):
            broker.open("identity-alice", OpenSocket(path))
        PermissionStore(home).grant("alice", "Tunnel", "default", (f"connect unix:{path}",))
        with socket.socket(fileno=broker.open("identity-alice", OpenSocket(path))):
            accepted, address = service.accept()
            accepted.close()
        assert identity_label(address) == ""
        with pytest.raises(Forbidden):
            broker.open("identity-bob", OpenSocket(path))


def test_a_link_leads_neither_to_the_daemon_nor_out_of_a_directory_that_code_may_write_to(
    home: Home, listener: socket.socket
) -> None:
    broker, outside, inbox = DescriptorBroker(home), home.path / "web", home.path / "inbox"
    inbox.mkdir()
    lines = tuple(f"connect unix:{inbox / name}" for name in ("daemon", "outside", "inside"))
    PermissionStore(home).grant("alice", "Tunnel", "default", (*lines, f"connect unix:{home.path / 'link'}"))
    (inbox / "daemon").symlink_to(home.control_socket)
    (inbox / "outside").symlink_to(outside)
    (inbox / "inside").symlink_to(inbox / "service")
    (home.path / "link").symlink_to(outside)
    with socket.socket(socket.AF_UNIX) as service, socket.socket(socket.AF_UNIX) as other:
        for made, path in ((service, inbox / "service"), (other, outside)):
            made.bind(str(path))
            made.listen()
        for name in ("outside", "inside"):
            os.close(broker.open("identity-alice", OpenSocket(str(inbox / name))))
        with pytest.raises(PermissionError):
            broker.open("identity-alice", OpenSocket(str(inbox / "daemon")))
        PermissionStore(home).grant("alice", "FileTransfer", "default", (f"write {inbox}",))
        for name in ("outside", "daemon"):
            with pytest.raises(PermissionError):
                broker.open("identity-alice", OpenSocket(str(inbox / name)))
        for path in (inbox / "inside", home.path / "link"):
            os.close(broker.open("identity-alice", OpenSocket(str(path))))


@pytest.mark.parametrize("child", ["network", "gateway", "vault", "alice"])
def test_others_get_no_sockets(home: Home, listener: socket.socket, child: str) -> None:
    with pytest.raises(Forbidden):
        DescriptorBroker(home).open(child, OpenSocket(str(home.control_socket)))


def test_the_network_process_is_connected_to_the_vault_and_to_nothing_else(home: Home) -> None:
    broker, vault = DescriptorBroker(home), home.mailbox("vault")
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(vault))
        service.listen()
        with socket.socket(fileno=broker.open("network", OpenSocket(str(vault)))):
            accepted, address = service.accept()
            accepted.close()
        assert address == ""
        for child in ("gateway", "identity-alice"):
            with pytest.raises(Forbidden):
                broker.open(child, OpenSocket(str(vault)))
        for path in (home.control_socket, home.mailbox("network"), home.path / "agent"):
            with pytest.raises(Forbidden):
                broker.open("network", OpenSocket(str(path)))


@pytest.mark.parametrize(("child", "mailbox"), [("network", "vault"), ("identity-alice", "network")])
def test_a_link_in_place_of_a_mailbox_is_not_followed(home: Home, child: str, mailbox: str) -> None:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(home.path / "agent"))
        agent.listen()
        home.mailbox(mailbox).symlink_to(home.path / "agent")
        with pytest.raises(PermissionError):
            DescriptorBroker(home).open(child, OpenSocket(str(home.mailbox(mailbox))))


def test_paths_that_name_nothing(home: Home) -> None:
    broker = DescriptorBroker(home)
    for path in ("", "run/../control.sock", str(home.mailbox("vault")), "\0fastn", str(home.path / "vault/../x")):
        with pytest.raises(Forbidden):
            broker.open("identity-alice", OpenSocket(path))
    with pytest.raises(OSError, match="No such file"):  # it is allowed, and nothing listens
        broker.open("identity-alice", OpenSocket(str(home.mailbox("network"))))


def test_the_config_is_opened_for_reading(home: Home) -> None:
    broker = DescriptorBroker(home)
    with pytest.raises(FileNotFoundError):
        broker.open("network", OpenConfig())
    home.config_file.write_text("[limits]\n")
    with os.fdopen(broker.open("network", OpenConfig()), "rb") as file:
        assert file.read() == b"[limits]\n"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(file.fileno(), b"x")


@contextmanager
def _dumpable() -> Iterator[None]:
    """Undo what the kernel does to a process that changes its user, because other tests look at this process."""
    try:
        yield
    finally:
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_granted_socket_is_connected_with_the_user_of_the_identity(home: Home) -> None:
    path = home.path / "web"
    PermissionStore(home).grant("alice", "Shop", "default", [f"connect unix:{path}"])
    broker = DescriptorBroker(home, lambda identity: ProcessAccount(60610, 60610))
    home.path.chmod(0o711)
    with socket.socket(socket.AF_UNIX) as listener, _dumpable():
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        with pytest.raises(PermissionError):
            broker.open("identity-alice", OpenSocket(str(path)))
        path.chmod(0o666)
        with socket.socket(fileno=broker.open("identity-alice", OpenSocket(str(path)))):
            accepted, _ = listener.accept()
            with accepted:
                found = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        assert CREDENTIALS.unpack(found)[1:] == (60610, 60610)
    assert (os.geteuid(), os.getegid()) == (0, 0)
