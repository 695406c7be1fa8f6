"""Commands of ``fastn-p2p files`` without a daemon: alice's ``FileTransfer`` runs in the process of the test."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pytest

import fastn_p2p_client.ipc.messages as m
from fastn_p2p.protocols.files import cli
from fastn_p2p_client import Client
from tests.support.file_peers import ALICE, BOB, InProcessClient

__all__ = ["FileCommands", "identity_info", "replace_client"]


class StubClient:
    """Stub of the ``Client`` of the commands: a request to alice comes from alice, any other from bob."""

    def __init__(self, client: InProcessClient, identities: list[m.IdentityInfo]) -> None:
        self.client = client
        self.identities = identities

    def __call__(self, home: Path | None, *, program: str) -> StubClient:
        return self

    async def __aenter__(self) -> StubClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    resolve_identity = Client.resolve_identity

    async def control(self, message: m.ListIdentities | m.ListReplicas) -> m.IdentityList | m.ReplicaList:
        return m.ReplicaList([]) if isinstance(message, m.ListReplicas) else m.IdentityList(self.identities)

    def _client_of(self, identity: str | None) -> InProcessClient:
        return self.client.as_peer(ALICE) if identity == "alice" else self.client

    async def call(self, identity: str | None, *arguments: Any, **options: Any) -> Any:
        return await self._client_of(identity).call(identity, *arguments, **options)

    async def connect(self, identity: str | None, *arguments: Any) -> Any:
        return await self._client_of(identity).connect(identity, *arguments)


def identity_info(name: str, *, online: bool = True) -> m.IdentityInfo:
    """Return the entry of alice or bob in the list of identities."""
    key = ALICE if name == "alice" else BOB
    return m.IdentityInfo(name=name, id52=key.id52, online=online, created="2026-01-01T00:00:00Z")


class FileCommands(NamedTuple):
    """Directories of alice (``root``, ``inbox``) and of the user of the commands (``here``)."""

    root: Path
    inbox: Path
    here: Path
    stub: StubClient


def replace_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileCommands:
    """Let the commands talk to a ``FileTransfer`` in this process."""
    root, inbox, here = (tmp_path / name for name in ("root", "inbox", "here"))
    for each in (root, inbox, here):
        each.mkdir()
    client = InProcessClient(tmp_path / "workspace", root=str(root), inbox=str(inbox))
    stub = StubClient(client, [identity_info("alice"), identity_info("bob", online=False)])
    monkeypatch.setattr(cli, "Client", stub)
    return FileCommands(root, inbox, here, stub)
