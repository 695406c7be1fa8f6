"""The front door: who has said hello, which commands are in flight, and that neither grows without limit."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage, DaemonBusy, InternalError, Overloaded, P2PError, VersionMismatch
from fastn_p2p_client.ipc.messages import (
    UNDECODABLE,
    Cancel,
    ControlRequest,
    ErrorReply,
    Hello,
    WatchBindings,
    Welcome,
    encode,
)
from fastn_p2p_client.limits import MAX_CALLS_PER_CLIENT, MAX_PAYLOAD, PROTOCOL_VERSION

from ..runtime.connection_limits import ConnectionLimits
from ..runtime.mailbox import (
    Mailbox,
    Sender,
)
from .commands import COMMANDS, Command
from .commands.status import daemon_version
from .context import (
    GatewayContext,
    WithPayload,
)

__all__ = ["HANDLED_BY_SERVER", "MAX_COMMANDS", "MAX_COMMANDS_PER_PROGRAM", "ControlServer"]

MAX_COMMANDS: Final = 1024
"""Commands in flight from all programs together."""
MAX_COMMANDS_PER_PROGRAM: Final = 64
MAX_WATCHERS_PER_PROGRAM: Final = 64
"""As many protocols as a program can follow."""
HANDLED_BY_SERVER: Final = (Hello, Cancel)
"""Messages that the door deals with itself; everything else is in ``COMMANDS``."""
_MAX_PROGRAM: Final = 64

_control: Final = msgspec.msgpack.Decoder(ControlRequest)

log = logging.getLogger(__name__)


class _RunningCommand:
    """One command in flight."""

    __slots__ = ("awaited", "command", "task")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.awaited = True
        self.task: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """Nobody waits for the answer. What changes something is carried through all the same."""
        self.awaited = False
        if not self.command.changes and self.task is not None:
            self.task.cancel()


class _ConnectedProgram:
    """One connection that has said hello."""

    __slots__ = ("errands", "name", "watchers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.errands: dict[bytes, _RunningCommand] = {}
        self.watchers: set[bytes] = set()


class ControlServer:
    """The mailbox ``control.sock``. Made inside the running event loop."""

    def __init__(self, desk: GatewayContext, limits: ConnectionLimits | None = None) -> None:
        self._desk = desk
        self._mailbox = Mailbox(desk.home.control_socket, self._on_message, on_gone=self._on_gone, limits=limits)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        desk.clients = lambda: self._mailbox.clients

    def open(self) -> None:
        self._mailbox.open()

    async def drain(self, timeout: float) -> None:
        """Takes no more commands; returns when those in flight have ended, after ``timeout`` seconds at the latest."""
        self._closing = True
        self._desk.noticeboard.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
            await asyncio.sleep(0.05)  # closing a socket throws away what its thread has not sent yet

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._mailbox.close()

    def _on_gone(self, sender: Sender) -> None:
        if isinstance(sender.state, _ConnectedProgram):
            for errand in list(sender.state.errands.values()):
                errand.forget()
            self._desk.noticeboard.forget(sender.state.watchers)

    def _on_message(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            self._take(sender, correlation, _decode(header), payload)
        except P2PError as error:
            self._mailbox.send(sender, correlation, encode(ErrorReply.of(error)))

    def _take(self, sender: Sender, correlation: bytes, message: ControlRequest, payload: bytes) -> None:
        """Raises P2PError: what is wrong with it."""
        program = sender.state
        if isinstance(message, Hello):
            self._welcome(sender, correlation, message)
        elif not isinstance(program, _ConnectedProgram):
            raise BadMessage(reason="say Hello first")
        elif isinstance(message, Cancel):
            errand = program.errands.get(correlation)
            if errand is not None:
                errand.forget()
                if not errand.command.changes:
                    del program.errands[correlation]  # makes room at once
        else:
            if self._closing:
                raise DaemonBusy(actor="gateway")
            if correlation in program.errands:
                raise BadMessage(reason="a command with this id is in flight already")
            if len(program.errands) >= MAX_COMMANDS_PER_PROGRAM:
                raise Overloaded(what="commands in flight from this program", limit=MAX_COMMANDS_PER_PROGRAM)
            if len(self._tasks) >= MAX_COMMANDS:
                raise Overloaded(what="commands in flight at this daemon", limit=MAX_COMMANDS)
            if isinstance(message, WatchBindings):
                program.watchers.add(message.watcher)
                if len(program.watchers) > MAX_WATCHERS_PER_PROGRAM:
                    raise Overloaded(what="watchers of this program", limit=MAX_WATCHERS_PER_PROGRAM)
            errand = program.errands[correlation] = _RunningCommand(COMMANDS[type(message)])
            task = asyncio.get_running_loop().create_task(
                self._run_command(sender, program, correlation, errand, message, payload)
            )
            errand.task = task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._ended(program, correlation, errand, done))

    def _welcome(self, sender: Sender, correlation: bytes, hello: Hello) -> None:
        if hello.version != PROTOCOL_VERSION:
            raise VersionMismatch(ours=hello.version, theirs=PROTOCOL_VERSION)
        if not isinstance(sender.state, _ConnectedProgram):
            sender.state = _ConnectedProgram(hello.program[:_MAX_PROGRAM])
        welcome = Welcome(
            version=PROTOCOL_VERSION,
            daemon=daemon_version(),
            data_route=os.fsencode(self._desk.home.mailbox("network")).decode(),
            max_payload=MAX_PAYLOAD,
            max_calls=MAX_CALLS_PER_CLIENT,
        )
        self._mailbox.send(sender, correlation, encode(welcome))

    async def _run_command(
        self,
        sender: Sender,
        program: _ConnectedProgram,
        correlation: bytes,
        errand: _RunningCommand,
        message: msgspec.Struct,
        payload: bytes,
    ) -> None:
        reply: msgspec.Struct
        data = b""
        try:
            answer = await errand.command.run(self._desk, message, payload)
            reply, data = answer if isinstance(answer, WithPayload) else (answer, b"")
        except P2PError as error:
            reply = ErrorReply.of(error)
        except Exception as error:
            log.exception("%s from %r failed", type(message).__name__, program.name)
            reply = ErrorReply.of(InternalError(reason=f"{type(message).__name__}: {type(error).__name__}"))
        if errand.awaited:
            self._mailbox.send(sender, correlation, encode(reply), data)

    def _ended(
        self, program: _ConnectedProgram, correlation: bytes, errand: _RunningCommand, task: asyncio.Task[None]
    ) -> None:
        if program.errands.get(correlation) is errand:
            del program.errands[correlation]
        self._tasks.discard(task)


def _decode(header: bytes) -> ControlRequest:
    try:
        message: ControlRequest = _control.decode(header)
    except UNDECODABLE as error:
        raise BadMessage(reason=str(error)) from error
    return message
