"""One-shot worker: a process that runs protocol code once.

It answers questions about offline identities, and runs code that was never run before. Its failures do not reach the
gateway or a serving identity. In the daemon the fork server starts it, with a socket for the task and the reply, in
msgpack. Where no daemon runs it is a program, ``python -m fastn_p2p_actors.identity.one_shot_worker``, which reads the
task from standard input and writes the reply to standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import HandlerFailed, InvalidConfig, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import Ack, ErrorReply, Message, encode
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.permissions import missing
from fastn_p2p_client.protocol import BindingContext, request_handlers, stream_handlers

from ..installed_protocols import is_builtin
from ..runtime import process_setup
from ..runtime.sandbox.roles import code_sandbox
from ..runtime.sandbox.sandbox import enter
from ..runtime.site_packages import refresh
from .declared_permissions import declared_permissions
from .hosted_binding import check_binding, check_class, delete_binding, describe_binding
from .sandboxed_process import HINT, is_permission_denied, make_directories, use_temporary_directory

MODULE: Final = "fastn_p2p_actors.identity.one_shot_worker"
WORKER_TIMEOUT: Final = 10
"""Seconds for one task."""
_MAX_DESCRIPTION: Final = 200
"""Characters of a description."""
_NO_KEY: Final = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")


class _AboutBinding(Message, frozen=True, kw_only=True):
    identity: str
    key: bytes
    protocol: str
    instance: str
    workspace: str
    config: bytes
    """JSON."""
    code: str = ""
    """Entry point of the protocol, as in the binding's ``config.json``."""
    home: str = ""
    granted: tuple[str, ...] = ()
    """Permissions of the binding, as lines."""

    @property
    def directory(self) -> str:
        return self.identity


class CheckConfig(_AboutBinding, frozen=True, kw_only=True, tag=400):
    """Check that the protocol would start with this config. The reply is ``DeclaredPermissions``.

    If it declares permissions that are not granted, its ``on_check`` does not run.
    """


class RunOnDelete(_AboutBinding, frozen=True, kw_only=True, tag=401):
    """Run its ``on_delete``. The reply is ``Ack``."""


class DescribeData(_AboutBinding, frozen=True, kw_only=True, tag=403):
    """Describe the data in its workspace. The reply is ``Data``."""


class DescribeProtocol(Message, frozen=True, tag=402):
    """Describe a protocol. The reply is ``ProtocolDescription``."""

    protocol: str
    code: str

    @property
    def directory(self) -> str:
        return ""


class EmptyDirectory(Message, frozen=True, tag=404):
    """Delete what the identity's process has made in a directory that is being deleted. The reply is ``Ack``."""

    path: str
    protocol: str = ""

    @property
    def directory(self) -> str:
        return Path(self.path).name


class ProtocolDescription(Message, frozen=True, tag=450):
    text: str
    """First line of its docstring."""
    public: bool
    requests: bool
    streams: bool
    schema: dict[str, Any]
    """JSON Schema of its config."""


class Data(Message, frozen=True, tag=451):
    text: str | None
    """Result of ``Protocol.describe_data``."""


class DeclaredPermissions(Message, frozen=True, tag=452):
    """Permissions that the protocol declares for the config, as lines."""

    lines: tuple[str, ...]


class WorkerLimits(msgspec.Struct, frozen=True):
    """Limits of a worker."""

    memory: int = 0
    """Bytes for ``set_memory_limit``; 0 for no limit."""
    sandbox: bool = True
    """Confine the worker, if the kernel can."""
    home: str = ""
    """Home of the daemon, which the sandbox keeps closed; empty without a daemon."""


class WorkerTask(msgspec.Struct, frozen=True):
    """Question, and the limits for answering it."""

    question: CheckConfig | RunOnDelete | DescribeData | DescribeProtocol | EmptyDirectory
    limits: WorkerLimits = WorkerLimits()


WorkerReply: TypeAlias = Ack | ProtocolDescription | Data | DeclaredPermissions | ErrorReply


def main() -> None:
    """Run the task on standard input. A second after its time limit the process ends, whatever the protocol does."""
    process_setup.die_with_parent()
    process_setup.make_undumpable()
    process_setup.forbid_core_files()
    signal.alarm(WORKER_TIMEOUT + 1)
    task = sys.stdin.buffer.read()
    answer = os.dup(1)
    os.set_inheritable(answer, False)
    os.dup2(2, 1)  # the output of protocol code must not mix with the reply
    reply = _reply_to(task)
    with os.fdopen(answer, "wb") as output:
        output.write(reply)
    os._exit(0)  # threads and exit handlers of the protocol must not delay the end


def answer(connection: socket.socket) -> None:
    """Run the task that is on the connection, and write the reply to it."""
    refresh()  # of packages that were installed since the daemon's start
    with connection.makefile("rb") as file:
        task = file.read()
    connection.sendall(_reply_to(task))


def _reply_to(task_bytes: bytes) -> bytes:
    task = msgspec.msgpack.decode(task_bytes, type=WorkerTask)
    process_setup.set_memory_limit(task.limits.memory)
    if isinstance(task.question, EmptyDirectory):
        _empty(Path(task.question.path))
        return encode(Ack())
    if task.limits.sandbox:
        _enter_sandbox(task.question, Path(task.limits.home) if task.limits.home else None)
    pid = os.getpid()
    reply: WorkerReply
    try:
        reply = asyncio.run(_run(task.question))
    except HandlerFailed as error:
        hint = f". {HINT}" if task.limits.sandbox and is_permission_denied(error) else ""
        reply = ErrorReply.of(HandlerFailed(peer=error.peer, protocol=error.protocol, reason=error.reason + hint))
    except P2PError as error:
        reply = ErrorReply.of(error)
    if os.getpid() != pid:
        os._exit(0)  # a child that the protocol's code forked and that returned here
    return encode(reply)


def _empty(directory: Path) -> None:
    """Delete what is in a directory, as far as this user may: without protocol code, so without a sandbox."""
    for folder, names, _ in os.walk(directory):
        for found in (Path(folder, name) for name in names):
            if not found.is_symlink():
                with contextlib.suppress(OSError):  # it is not this user's
                    found.chmod(0o700)
    for each in directory.iterdir():
        shutil.rmtree(each, ignore_errors=True)
        with contextlib.suppress(OSError):
            each.unlink()


def _enter_sandbox(question: CheckConfig | RunOnDelete | DescribeData | DescribeProtocol, home: Path | None) -> None:
    """Confine this process before it imports a protocol: to the identity's workspaces, and what was granted."""
    if isinstance(question, DescribeProtocol):
        enter(code_sandbox(home))
    else:
        granted = question.granted
        if is_builtin(question.code):
            with contextlib.suppress(P2PError):  # the reply names the error later
                granted += declared_permissions(question.protocol, question.code, question.config)
        directory = Home(Path(question.home)).identities / question.identity
        make_directories(directory)
        use_temporary_directory(directory)
        enter(code_sandbox(home, directory, granted))


async def _run(question: CheckConfig | RunOnDelete | DescribeData | DescribeProtocol) -> WorkerReply:
    if isinstance(question, DescribeProtocol):
        return _describe_class(question)
    context = BindingContext(
        question.identity,
        PublicKey(question.key),
        question.protocol,
        question.instance,
        Path(question.workspace),
        None,
        Home(Path(question.home)) if question.home else None,
    )
    if isinstance(question, DescribeData):
        text = await describe_binding(context, question.config, question.code)
        return Data(None if text is None else str(text)[:_MAX_DESCRIPTION])
    if isinstance(question, RunOnDelete):
        await delete_binding(context, question.config, question.code)
        return Ack()
    with contextlib.suppress(InvalidConfig, HandlerFailed):  # the check below names the reason better
        lines = declared_permissions(question.protocol, question.code, question.config)
        if missing(lines, question.granted) and not is_builtin(question.code):
            return DeclaredPermissions(lines)
    await check_binding(context, question.config, question.code)
    return DeclaredPermissions(declared_permissions(question.protocol, question.code, question.config))


def _describe_class(question: DescribeProtocol) -> ProtocolDescription:
    nothing = BindingContext("", _NO_KEY, question.protocol, "", Path(os.devnull), None)
    cls = check_class(nothing, question.code)
    lines = (cls.__doc__ or "").strip().splitlines()
    return ProtocolDescription(
        text=lines[0].strip()[:_MAX_DESCRIPTION] if lines else "",
        public=bool(cls.public),
        requests=bool(request_handlers(cls)),
        streams=bool(stream_handlers(cls)),
        schema=msgspec.json.schema(cls.Config),
    )


if __name__ == "__main__":
    main()
