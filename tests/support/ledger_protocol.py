"""Protocol that keeps state: each entry is added to a file."""

from __future__ import annotations

from typing import Any

from fastn_p2p_client.protocol import Peer, Protocol, request, stream
from fastn_p2p_client.session.session import Session

__all__ = ["Ledger"]


class Ledger(Protocol):
    """Public. An empty entry reads; every other one is added. The reply is the caller and all entries."""

    public = True

    @classmethod
    def keeps_state(cls, config: Any) -> bool:
        return True

    @request
    def add(self, entry: str, peer: Peer) -> list[str]:
        file = self.context.workspace / "entries"
        if entry:
            with file.open("a") as entries:
                entries.write(f"{entry}\n")
        return [peer.key.id52, *(file.read_text().splitlines() if file.exists() else [])]

    @stream
    async def read(self, session: Session, entry: str) -> None:
        await session.write((self.context.workspace / "entries").read_bytes())
        await session.send_eof()
