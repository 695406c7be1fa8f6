"""Protocol that notes which of its hooks have run."""

from __future__ import annotations

from fastn_p2p_client.protocol import Protocol, request

__all__ = ["Diary"]


class Diary(Protocol):
    """Public. Keeps its notes in its workspace."""

    public = True

    async def on_activate(self) -> None:
        self._note("activated")

    async def on_deactivate(self) -> None:
        self._note(f"deactivated: {self.deactivation_reason}")

    @request
    async def read(self, request: None) -> list[str]:
        return (self.context.workspace / "notes").read_text().splitlines()

    def _note(self, line: str) -> None:
        with (self.context.workspace / "notes").open("a") as notes:
            notes.write(f"{line}\n")
