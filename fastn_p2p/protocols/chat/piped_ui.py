"""Conversation with piped input or output: one message per line, or one event per line as JSON."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from fastn_p2p_client.chat.client import Conversation
from fastn_p2p_client.chat.messages import MAX_TEXT, ChatMessage, DeliveryProblem, Event, HistoryEnd, StateChanged
from fastn_p2p_client.errors import ApplicationError, DeadlineExceeded

from ...concurrency import run_all
from ...console.async_stdio import StdinReader
from ...console.formatting import utc_time
from ...console.output import put_json, write_problem, write_result
from .formatting import escape_line

_MAX_LINE: Final = 4 * MAX_TEXT
"""Bytes of the longest line: a character has at most four."""


class _InputFinished(Exception):
    """The input has ended, and every message is stored or delivered."""


class PipedConversation:
    """Conversation over standard input and output. It ends when the input has ended and every message is stored.

    Args:
        last: number of earlier messages to print first.
        json: print events as JSON, also those of own messages.
        until_delivered: also wait until the peer has every message.
        timeout: seconds of that wait, from the end of the input; None for no limit.
    """

    def __init__(
        self, conversation: Conversation, *, last: int, json: bool, until_delivered: bool, timeout: float | None
    ) -> None:
        self._conversation = conversation
        self._last = last
        self._json = json
        self._until_delivered = until_delivered
        self._timeout = timeout
        self._following = asyncio.Event()
        self._sent: set[str] = set()
        self._stored: set[str] = set()
        """Ids of messages of which an event has said that they are stored."""
        self._delivered: set[str] = set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Run the conversation.

        Raises:
            ApplicationError, P2PError: a message cannot be stored.
            DeadlineExceeded: the peer has not received every message in time. They are stored and delivered later.
            OSError: the input cannot be read, or the output cannot be written.
        """
        try:
            await run_all(self._follow(), self._send_lines())
        except _InputFinished:
            return

    async def _follow(self) -> None:
        async with aclosing(self._conversation.events(self._last)) as events:
            async for event in events:
                self._print(event)
                if isinstance(event, ChatMessage):
                    await self._conversation.mark_read(event)
                if isinstance(event, ChatMessage | StateChanged):
                    (self._stored if event.mark == "kept" else self._delivered).add(event.id)
                    self._changed.set()

    def _print(self, event: Event) -> None:
        if isinstance(event, HistoryEnd):
            self._following.set()
        if self._json:
            put_json(event)
        elif isinstance(event, ChatMessage):
            if event.id not in self._sent:
                who = "me" if event.mine else self._conversation.name
                write_result(f"{utc_time(event.at // 1000)}\t{escape_line(who)}\t{escape_line(event.text)}")
        elif isinstance(event, DeliveryProblem) and event.words:
            write_problem(f"{self._conversation.name} does not accept your messages yet: {event.words}")

    async def _send_lines(self) -> None:
        await self._following.wait()
        number = 0
        async for text in _lines():
            number += 1
            if len(text) > MAX_TEXT:
                raise ApplicationError(
                    "TooLong", f"line {number} has more than {MAX_TEXT} characters", {"limit": MAX_TEXT}
                )
            if text:
                id = secrets.token_hex(16)
                self._sent.add(id)
                await self._conversation.send(text, id=id)
        await self._wait_for_all(self._stored, self._delivered)
        if self._until_delivered:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._wait_for_all(self._delivered)
            except TimeoutError:
                raise DeadlineExceeded(seconds=self._timeout or 0.0) from None
        raise _InputFinished

    async def _wait_for_all(self, *known: set[str]) -> None:
        """Wait until every sent message is in one of the sets."""
        while not self._sent <= set().union(*known):
            self._changed.clear()
            await self._changed.wait()


async def _lines() -> AsyncIterator[str]:
    """Yield the lines of standard input without line ends. Bytes that are not UTF-8 are replaced."""
    source = StdinReader()
    rest = b""
    try:
        while data := await source.read():
            *complete, rest = (rest + data).split(b"\n")
            for line in complete:
                yield _text(line)
            if len(rest) > _MAX_LINE:
                break
        if rest:
            yield _text(rest)
    finally:
        source.close()


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
