"""A conversation in a terminal: an editor at the bottom, the latest messages above it, the rest in the scrollback.

The latest messages are drawn again whenever something changes, so their marks are those of the moment. What gets older
is written above them for good.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from functools import partial
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.application.current import set_app
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.shortcuts import print_formatted_text
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth, is_dumb_terminal

from fastn_p2p_client.chat.client import Conversation
from fastn_p2p_client.chat.messages import (
    MAX_TEXT,
    ChatMessage,
    Event,
    HistoryEnd,
    MessageState,
    Presence,
    StateChanged,
)
from fastn_p2p_client.errors import ApplicationError, P2PError
from fastn_p2p_client.plain_text import plain

from ...concurrency import run_all
from ...console.formatting import local_time
from .formatting import (
    MARKS,
    escape_text,
    typed,
)

_LIVE: Final = 12
"""Rows at most of messages whose marks still change on the screen."""
_STYLE: Final = Style.from_dict(
    {
        "time": "ansibrightblack",
        "me": "ansigreen",
        "peer": "bold ansicyan",
        "mark": "ansibrightblack",
        "here": "ansigreen",
        "trouble": "ansired",
        "bottom-toolbar": "noreverse",
    }
)


class _UserQuit(Exception):
    """The owner has left."""


class ChatTerminal:
    """One conversation, until Ctrl-D, or Ctrl-C where nothing is typed.

    Args:
        last: messages of the history that are shown first.
        input, output: for tests; the process's terminal by default.
    """

    def __init__(
        self, conversation: Conversation, *, last: int, input: Input | None = None, output: Output | None = None
    ) -> None:
        self._conversation = conversation
        self._last = last
        self._name = plain(conversation.name)
        self._live: deque[ChatMessage] = deque()
        self._marks: dict[str, MessageState] = {}
        self._presence = ""
        self._trouble = ""
        self._failed = ""
        self._unsent: asyncio.Queue[str] = asyncio.Queue()
        self._interrupted = False
        self._prompt: PromptSession[str] = PromptSession(
            self._above_the_editor,
            bottom_toolbar=self._status,
            erase_when_done=True,
            key_bindings=self._keys(),
            style=_STYLE,
            enable_suspend=True,
            input=input,
            output=output,
        )

    async def run(self) -> bool:
        """Whether it was left by Ctrl-C.

        Raises:
            ApplicationError, P2PError: the conversation cannot go on.
        """
        try:
            await run_all(self._follow(), self._edit(), self._send())
        except _UserQuit:
            return self._interrupted
        finally:
            for line in self._live:
                self._write(line)
            self._live.clear()
        return False

    # ── what happens ─────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        async with aclosing(self._conversation.events(self._last)) as events:
            async for event in events:
                await self._take(event)
                self._prompt.app.invalidate()

    async def _take(self, event: Event) -> None:
        if isinstance(event, ChatMessage):
            self._marks[event.id] = event.mark
            self._live.append(event)
            await self._scroll_out()
            await self._conversation.mark_read(event)
        elif isinstance(event, StateChanged):
            if event.id in self._marks:
                self._marks[event.id] = event.mark
        elif isinstance(event, HistoryEnd | Presence):
            self._presence = event.presence
        else:
            self._trouble = plain(event.words)

    async def _scroll_out(self) -> None:
        """Write for good what there is no room for above the editor."""
        size = self._prompt.app.output.get_size()
        while self._live and sum(self._rows(line, size.columns) for line in self._live) > self._room(size.rows):
            oldest = self._live.popleft()
            app = self._prompt.app
            if app.is_running:
                with set_app(app):
                    await run_in_terminal(partial(self._write, oldest))
            else:
                self._write(oldest)
            self._marks.pop(oldest.id, None)

    @staticmethod
    def _room(rows: int) -> int:
        """Rows for the latest messages: the editor and the status line need some too. A terminal that cannot move its
        cursor (``TERM=dumb``) draws nothing anew, so every message is written for good at once."""
        return 0 if is_dumb_terminal() else max(0, min(_LIVE, rows // 2))

    def _rows(self, line: ChatMessage, columns: int) -> int:
        return 1 + sum(text.count("\n") for _, text, *_ in wrapped(self._fragments(line), columns))

    # ── the owner ────────────────────────────────────────────────────────────────────────────────

    async def _edit(self) -> None:
        while True:
            try:
                text = await self._prompt.prompt_async()
            except EOFError:
                await self._unsent.join()
                raise _UserQuit from None
            except KeyboardInterrupt:
                self._interrupted = True
                raise _UserQuit from None
            text = typed(text).strip()
            for start in range(0, len(text), MAX_TEXT):
                self._unsent.put_nowait(text[start : start + MAX_TEXT])

    async def _send(self) -> None:
        """What was typed, in order. Editing goes on meanwhile: it can take a while when the daemon is coming back."""
        while True:
            text = await self._unsent.get()
            self._failed = "sending"
            try:
                await self._conversation.send(text)
            except (ApplicationError, P2PError) as error:
                self._failed = f"not sent (arrow up brings it back): {plain(str(error))}"
            else:
                self._failed = ""
            self._unsent.task_done()
            self._prompt.app.invalidate()

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-c")
        def interrupt(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
            else:
                event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

        @keys.add("escape", "enter")
        def new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        return keys

    # ── how it looks ─────────────────────────────────────────────────────────────────────────────

    def _above_the_editor(self) -> StyleAndTextTuples:
        size = self._prompt.app.output.get_size()
        fragments: StyleAndTextTuples = [("", "> ")]
        room = self._room(size.rows)
        for line in reversed(self._live):  # when the terminal has become smaller, the older ones are still to come
            room -= self._rows(line, size.columns)
            if room < 0:
                break
            fragments = [*wrapped(self._fragments(line), size.columns), ("", "\n"), *fragments]
        return fragments

    def _fragments(self, line: ChatMessage) -> StyleAndTextTuples:
        who, style = ("me", "class:me") if line.mine else (self._name, "class:peer")
        text = escape_text(line.text).replace("\n", "\n      ")
        fragments: StyleAndTextTuples = [
            ("class:time", f"{local_time(line.at / 1000)} "),
            (style, who),
            ("", f"  {text}"),
        ]
        if line.mine:
            fragments.append(("class:mark", f"  {MARKS[self._marks.get(line.id, line.mark)]}"))
        return fragments

    def _write(self, line: ChatMessage) -> None:
        print_formatted_text(_Fragments(self._fragments(line)), style=_STYLE, output=self._prompt.app.output)

    def _status(self) -> StyleAndTextTuples:
        fragments: StyleAndTextTuples = [("", self._name)]
        if self._presence:
            fragments += [("", " is "), ("class:here" if self._presence == "here" else "", self._presence)]
        waiting = sum(self._marks.get(line.id) == "kept" for line in self._live if line.mine)
        if waiting:
            fragments.append(("", f" · {waiting} waiting"))
        for words in (self._failed, self._trouble):
            if words:
                fragments += [("", " · "), ("class:trouble", words)]
        return fragments


def wrapped(fragments: StyleAndTextTuples, columns: int) -> StyleAndTextTuples:
    """With a line feed wherever a row of the terminal is full; wide characters take two columns."""
    rows: StyleAndTextTuples = []
    column = 0
    for style, text, *_ in fragments:
        parts: list[str] = []
        for character in text:
            width = 0 if character == "\n" else get_cwidth(character)
            if column + width > max(columns, 2):
                parts.append("\n")
                column = 0
            column = 0 if character == "\n" else column + width
            parts.append(character)
        rows.append((style, "".join(parts)))
    return rows


class _Fragments:
    """Formatted text that is fragments already."""

    def __init__(self, fragments: StyleAndTextTuples) -> None:
        self._fragments = fragments

    def __pt_formatted_text__(self) -> StyleAndTextTuples:
        return self._fragments
