"""Server of ``control.sock``: hello, commands in flight, and their limits."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Final

import msgspec

from fastn_p2p_client.errors import (
    BadMessage,
    DaemonBusy,
    Forbidden,
    InternalError,
    Overloaded,
    P2PError,
    VersionMismatch,
)
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
from fastn_p2p_client.ipc.version_range import VersionRange
from fastn_p2p_client.limits import MAX_CALLS_PER_CLIENT, MAX_PAYLOAD, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION

from ..runtime.connection_limits import ConnectionLimits
from ..runtime.mailbox import Mailbox, Sender
from .command_audit import record_command
from .commands import COMMANDS, COMMANDS_OF_IDENTITIES, Command
from .context import GatewayContext, WithPayload

MAX_COMMANDS: Final = 1024
"""Commands in flight from all programs together."""
MAX_COMMANDS_PER_PROGRAM: Final = 64
"""Commands in flight from one program."""
MAX_WATCHERS_PER_PROGRAM: Final = 64
"""Protocols that one program can follow."""
HANDLED_BY_SERVER: Final = (Hello, Cancel)
"""Messages that the server handles itself; all others are in ``COMMANDS``."""
VERSIONS: Final = VersionRange(OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION)
"""Versions of the local protocol that the server speaks."""
_MAX_PROGRAM: Final = 64
"""Characters of a program's name that are kept."""

_control: Final = msgspec.msgpack.Decoder(ControlRequest)

log = logging.getLogger(__name__)


class _RunningCommand:
    """Command in flight."""

    __slots__ = ("awaited", "command", "task")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.awaited = True
        self.task: asyncio.Task[None] | None = None

    def abandon(self) -> None:
        """Send no reply: its program has gone. A command that changes something is completed all the same."""
        self.awaited = False
        if not self.command.changes and self.task is not None:
            self.task.cancel()


class _ConnectedProgram:
    """Connection that has sent ``Hello``."""

    __slots__ = ("commands", "name", "watchers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.commands: dict[bytes, _RunningCommand] = {}
        self.watchers: set[bytes] = set()


class ControlServer:
    """Server of ``control.sock``. Create it inside the running event loop.

    Args:
        context: context of every command.
        limits: limits of the open connections.
        listener: socket that listens there already, if there is one.
    """

    def __init__(
        self,
        context: GatewayContext,
        limits: ConnectionLimits | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self._context = context
        self._mailbox = Mailbox(
            context.home.control_socket, self._on_message, on_gone=self._on_gone, limits=limits, listener=listener
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._refused: set[tuple[str, str]] = set()
        """Commands that were refused to identities, by name of the identity: as many as there are of both at most."""
        context.clients = lambda: self._mailbox.clients

    def open(self) -> None:
        self._mailbox.open()

    async def drain(self, timeout: float) -> None:
        """Accept no more commands, and wait at most ``timeout`` seconds until those in flight have ended."""
        self._closing = True
        self._context.watchers.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
            await asyncio.sleep(0.05)  # closing a socket drops messages that are not sent yet

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._mailbox.close()

    def _on_gone(self, sender: Sender) -> None:
        if isinstance(sender.state, _ConnectedProgram):
            for running in list(sender.state.commands.values()):
                running.abandon()
            self._context.watchers.remove(sender.state.watchers)

    def _on_message(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            self._dispatch(sender, correlation, _decode(header), payload)
        except P2PError as error:
            self._mailbox.send(sender, correlation, encode(ErrorReply.of(error)))

    def _dispatch(self, sender: Sender, correlation: bytes, message: ControlRequest, payload: bytes) -> None:
        """Handle one message.

        Raises:
            P2PError: the message is invalid, or exceeds a limit.
        """
        program = sender.state
        if isinstance(message, Hello):
            self._welcome(sender, correlation, message)
        elif not isinstance(program, _ConnectedProgram):
            raise BadMessage(reason="say Hello first")
        elif isinstance(message, Cancel):
            running = program.commands.get(correlation)
            if running is not None:
                running.abandon()
                if not running.command.changes:
                    del program.commands[correlation]  # frees its place at once
        else:
            if sender.identity is not None and type(message) not in COMMANDS_OF_IDENTITIES:
                raise self._forbid(sender.identity, type(message).__name__)
            if self._closing:
                raise DaemonBusy(actor="gateway")
            if correlation in program.commands:
                raise BadMessage(reason="a command with this id is in flight already")
            if len(program.commands) >= MAX_COMMANDS_PER_PROGRAM:
                raise Overloaded(what="commands in flight from this program", limit=MAX_COMMANDS_PER_PROGRAM)
            if len(self._tasks) >= MAX_COMMANDS:
                raise Overloaded(what="commands in flight at this daemon", limit=MAX_COMMANDS)
            if isinstance(message, WatchBindings):
                program.watchers.add(message.watcher)
                if len(program.watchers) > MAX_WATCHERS_PER_PROGRAM:
                    raise Overloaded(what="watchers of this program", limit=MAX_WATCHERS_PER_PROGRAM)
            running = program.commands[correlation] = _RunningCommand(COMMANDS[type(message)])
            task = asyncio.get_running_loop().create_task(
                self._run_command(sender, program, correlation, running, message, payload)
            )
            running.task = task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._on_task_done(program, correlation, running, done))

    def _forbid(self, identity: str, command: str) -> Forbidden:
        """Return the error for a command of protocol code. The log has each case once."""
        if (identity, command) not in self._refused:
            self._refused.add((identity, command))
            log.warning("code of %s was refused: %s", identity or "an identity", command)
        return Forbidden(role=f"a protocol of {identity}" if identity else "a protocol", request=command)

    def _welcome(self, sender: Sender, correlation: bytes, hello: Hello) -> None:
        program = VersionRange.of_hello(hello.version, hello.newest)
        version = VERSIONS.common(program)
        if version is None:
            raise VersionMismatch(ours=program.nearest(VERSIONS), theirs=VERSIONS.nearest(program))
        if not isinstance(sender.state, _ConnectedProgram):
            sender.state = _ConnectedProgram(hello.program[:_MAX_PROGRAM])
        welcome = Welcome(
            version=version,
            daemon=self._context.settings.version,
            data_route=os.fsencode(self._context.home.mailbox("network")).decode(),
            max_payload=MAX_PAYLOAD,
            max_calls=MAX_CALLS_PER_CLIENT,
            waiting=self._context.waiting if sender.identity is None else (),
        )
        self._mailbox.send(sender, correlation, encode(welcome))

    async def _run_command(
        self,
        sender: Sender,
        program: _ConnectedProgram,
        correlation: bytes,
        running: _RunningCommand,
        message: msgspec.Struct,
        payload: bytes,
    ) -> None:
        reply: msgspec.Struct
        data = b""
        try:
            answer = await running.command.run(self._context, message, payload)
            reply, data = answer if isinstance(answer, WithPayload) else (answer, b"")
        except P2PError as error:
            reply = ErrorReply.of(error)
        except Exception as error:
            log.exception("%s from %r failed", type(message).__name__, program.name)
            reply = ErrorReply.of(InternalError(reason=f"{type(message).__name__}: {type(error).__name__}"))
        if running.command.changes:
            record_command(self._context.audit, sender, program.name, message, reply)
        if running.awaited:
            self._mailbox.send(sender, correlation, encode(reply), data)

    def _on_task_done(
        self, program: _ConnectedProgram, correlation: bytes, running: _RunningCommand, task: asyncio.Task[None]
    ) -> None:
        if program.commands.get(correlation) is running:
            del program.commands[correlation]
        self._tasks.discard(task)


def _decode(header: bytes) -> ControlRequest:
    try:
        message: ControlRequest = _control.decode(header)
    except UNDECODABLE as error:
        raise BadMessage(reason=str(error)) from error
    return message
