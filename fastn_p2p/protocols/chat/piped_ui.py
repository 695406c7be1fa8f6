"""A conversation with piped input or output: each line is a message, and what comes is a line, or an event in JSON."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from fastn_p2p_client.chat.client import Conversation
from fastn_p2p_client.chat.messages import (
    MAX_TEXT,
    ChatMessage,
    DeliveryProblem,
    Event,
    HistoryEnd,
    StateChanged,
)
from fastn_p2p_client.errors import ApplicationError, DeadlineExceeded

from ...concurrency import run_all
from ...console.async_stdio import StdinReader
from ...console.formatting import utc_time
from ...console.output import (
    put_json,
    write_message,
    write_result,
)
from .formatting import (
    escape_line,
)

_MAX_LINE: Final = 4 * MAX_TEXT
"""Bytes of the longest text."""


class _InputFinished(Exception):
    """Everything has been said, and what was waited for has happened."""


class PipedConversation:
    """One conversation, until the input ends and all of it is kept.

    Args:
        last: messages of the history that are put out first.
        json: events on one line each, those of one's own messages too.
        delivered: also until the peer has all of it, at most ``timeout`` seconds after the input has ended.
    """

    def __init__(
        self, conversation: Conversation, *, last: int, json: bool, delivered: bool, timeout: float | None
    ) -> None:
        self._conversation = conversation
        self._last = last
        self._json = json
        self._until_delivered = delivered
        self._timeout = timeout
        self._joined = asyncio.Event()
        self._said: set[str] = set()
        self._told: set[str] = set()
        """What was kept, and told so."""
        self._delivered: set[str] = set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """
        Raises:
            ApplicationError, P2PError: a message is not kept.
            DeadlineExceeded: the peer did not get all of it in time; it is kept, and delivered later.
            OSError: of the input or the output.
        """
        try:
            await run_all(self._follow(), self._speak())
        except _InputFinished:
            return

    async def _follow(self) -> None:
        async with aclosing(self._conversation.events(self._last)) as events:
            async for event in events:
                self._put(event)
                if isinstance(event, ChatMessage):
                    await self._conversation.mark_read(event)
                if isinstance(event, ChatMessage | StateChanged):
                    (self._told if event.mark == "kept" else self._delivered).add(event.id)
                    self._news.set()

    def _put(self, event: Event) -> None:
        if isinstance(event, HistoryEnd):
            self._joined.set()
        if self._json:
            put_json(event)
        elif isinstance(event, ChatMessage):
            if event.id not in self._said:
                who = "me" if event.mine else self._conversation.name
                write_result(f"{utc_time(event.at // 1000)}\t{escape_line(who)}\t{escape_line(event.text)}")
        elif isinstance(event, DeliveryProblem) and event.words:
            write_message(f"fastn-p2p: {self._conversation.name} does not get your messages yet: {event.words}")

    async def _speak(self) -> None:
        await self._joined.wait()
        number = 0
        async for text in _lines():
            number += 1
            if len(text) > MAX_TEXT:
                raise ApplicationError(
                    "TooLong", f"line {number} has more than {MAX_TEXT} characters", {"limit": MAX_TEXT}
                )
            if text:
                id = secrets.token_hex(16)
                self._said.add(id)
                await self._conversation.send(text, id=id)
        await self._all_in(self._told, self._delivered)
        if self._until_delivered:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._all_in(self._delivered)
            except TimeoutError:
                raise DeadlineExceeded(seconds=self._timeout or 0.0) from None
        raise _InputFinished

    async def _all_in(self, *known: set[str]) -> None:
        """Returns once everything that was said is in one of these."""
        while not self._said <= set().union(*known):
            self._news.clear()
            await self._news.wait()


async def _lines() -> AsyncIterator[str]:
    """Of standard input, without their ends. What is not UTF-8 is replaced."""
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
