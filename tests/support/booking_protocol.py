"""Protocol that notes what it begins and ends, and waits for files of its workspace as it is told."""

from __future__ import annotations

import asyncio
import os

import msgspec

from fastn_p2p_client.protocol import Protocol, request

__all__ = ["NOTE", "Booking"]

NOTE = "note"


class Booked(msgspec.Struct):
    """A request."""

    number: int
    until: str = ""
    """Name of the file to wait for."""


class Booking(Protocol):
    """Public. Replies with the pid of its process."""

    public = True

    @request
    async def book(self, booked: Booked) -> int:
        self._note(f"begun {booked.number}")
        while booked.until and not (self.context.workspace / booked.until).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self._note(f"ended {booked.number}")
        return os.getpid()

    def _note(self, what: str) -> None:
        with (self.context.workspace / NOTE).open("a") as file:
            file.write(f"{what}\n")
