"""Conversation in a terminal: an editor at the bottom, the latest messages above it, older ones in the scrollback.

The latest messages are redrawn after every change, so that their marks are current. An older message is written above
them once and never redrawn.
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
from prompt_toolkit.filters import Condition
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
from .formatting import MARKS, decode_typed, escape_text

_MAX_LIVE_ROWS: Final = 12
"""Rows of messages that are redrawn."""
_STYLE: Final = Style.from_dict(
    {
        "time": "ansibrightblack",
        "me": "ansigreen",
        "peer": "bold ansicyan",
        "mark": "ansibrightblack",
        "here": "ansigreen",
        "problem": "ansired",
        "bottom-toolbar": "noreverse",
    }
)


class _UserQuit(Exception):
    """The user has typed Ctrl-D or Ctrl-C."""


class ChatTerminal:
    """Conversation in a terminal. It ends at Ctrl-D, and at Ctrl-C in an empty editor.

    Args:
        last: number of earlier messages to show first.
        input, output: for tests. Default: the terminal of the process.
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
        self._problem = ""
        self._send_state = ""
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._interrupted = False
        self._prompt: PromptSession[str] = PromptSession(
            self._prompt_text,
            bottom_toolbar=self._status,
            erase_when_done=True,
            key_bindings=self._keys(),
            style=_STYLE,
            enable_suspend=True,
            input=input,
            output=output,
        )

    async def run(self) -> bool:
        """Run the conversation. Return whether Ctrl-C ended it.

        Raises:
            ApplicationError, P2PError: the conversation cannot continue.
        """
        try:
            await run_all(self._follow(), self._edit(), self._send())
        except _UserQuit:
            return self._interrupted
        finally:
            for message in self._live:
                self._write(message)
            self._live.clear()
        return False

    # ── events ───────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        async with aclosing(self._conversation.events(self._last)) as events:
            async for event in events:
                await self._on_event(event)
                self._prompt.app.invalidate()

    async def _on_event(self, event: Event) -> None:
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
            self._problem = plain(event.words)

    async def _scroll_out(self) -> None:
        """Write the oldest messages to the scrollback until the others fit above the editor."""
        size = self._prompt.app.output.get_size()
        while self._live and sum(self._rows(message, size.columns) for message in self._live) > self._live_rows(
            size.rows
        ):
            oldest = self._live.popleft()
            app = self._prompt.app
            if app.is_running:
                with set_app(app):
                    await run_in_terminal(partial(self._write, oldest))
            else:
                self._write(oldest)
            self._marks.pop(oldest.id, None)

    @staticmethod
    def _live_rows(rows: int) -> int:
        """Return the rows for the latest messages; the editor and the status line need the others.

        A terminal that cannot move its cursor (``TERM=dumb``) cannot redraw, so it has none.
        """
        return 0 if is_dumb_terminal() else max(0, min(_MAX_LIVE_ROWS, rows // 2))

    def _rows(self, message: ChatMessage, columns: int) -> int:
        return 1 + sum(text.count("\n") for _, text, *_ in wrap(self._fragments(message), columns))

    # ── input ────────────────────────────────────────────────────────────────────────────────────

    async def _edit(self) -> None:
        while True:
            try:
                text = await self._prompt.prompt_async()
            except EOFError:
                await self._outgoing.join()
                raise _UserQuit from None
            except KeyboardInterrupt:
                self._interrupted = True
                raise _UserQuit from None
            text = decode_typed(text).strip()
            for start in range(0, len(text), MAX_TEXT):
                self._outgoing.put_nowait(text[start : start + MAX_TEXT])

    async def _send(self) -> None:
        """Send typed messages in order. The user can type meanwhile, because a restart of the daemon takes a while."""
        while True:
            text = await self._outgoing.get()
            self._send_state = "sending"
            try:
                await self._conversation.send(text)
            except (ApplicationError, P2PError) as error:
                self._send_state = f"not sent (Arrow Up brings it back): {plain(str(error))}"
            else:
                self._send_state = ""
            self._outgoing.task_done()
            self._prompt.app.invalidate()

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-c")
        def interrupt(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
            else:
                event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

        # While a message is written above the editor, the terminal is in its ordinary mode. It turns a Ctrl-D that is
        # typed then into NUL.
        @keys.add("c-@", filter=Condition(is_dumb_terminal))
        def end(event: KeyPressEvent) -> None:
            if not event.current_buffer.text:
                event.app.exit(exception=EOFError, style="class:exiting")

        @keys.add("escape", "enter")
        def new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        return keys

    # ── output ───────────────────────────────────────────────────────────────────────────────────

    def _prompt_text(self) -> StyleAndTextTuples:
        size = self._prompt.app.output.get_size()
        fragments: StyleAndTextTuples = [("", "> ")]
        room = self._live_rows(size.rows)
        for message in reversed(self._live):  # after the terminal got smaller, older messages do not fit
            room -= self._rows(message, size.columns)
            if room < 0:
                break
            fragments = [*wrap(self._fragments(message), size.columns), ("", "\n"), *fragments]
        return fragments

    def _fragments(self, message: ChatMessage) -> StyleAndTextTuples:
        who, style = ("me", "class:me") if message.mine else (self._name, "class:peer")
        text = escape_text(message.text).replace("\n", "\n      ")
        fragments: StyleAndTextTuples = [
            ("class:time", f"{local_time(message.at / 1000)} "),
            (style, who),
            ("", f"  {text}"),
        ]
        if message.mine:
            fragments.append(("class:mark", f"  {MARKS[self._marks.get(message.id, message.mark)]}"))
        return fragments

    def _write(self, message: ChatMessage) -> None:
        print_formatted_text(_Fragments(self._fragments(message)), style=_STYLE, output=self._prompt.app.output)

    def _status(self) -> StyleAndTextTuples:
        fragments: StyleAndTextTuples = [("", self._name)]
        if self._presence:
            fragments += [("", " is "), ("class:here" if self._presence == "here" else "", self._presence)]
        waiting = sum(self._marks.get(message.id) == "kept" for message in self._live if message.mine)
        if waiting:
            fragments.append(("", f" · {waiting} waiting"))
        for text in (self._send_state, self._problem):
            if text:
                fragments += [("", " · "), ("class:problem", text)]
        return fragments


def wrap(fragments: StyleAndTextTuples, columns: int) -> StyleAndTextTuples:
    """Return fragments with a line feed after each full row of the terminal. Wide characters take two columns."""
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
    """Adapter that makes fragments printable as formatted text."""

    def __init__(self, fragments: StyleAndTextTuples) -> None:
        self._fragments = fragments

    def __pt_formatted_text__(self) -> StyleAndTextTuples:
        return self._fragments
