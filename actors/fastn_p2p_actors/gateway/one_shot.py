"""Run protocol code in a one-shot worker process (``identity.one_shot_worker``).

The worker has ``WORKER_TIMEOUT`` seconds and a memory limit. Processes that it started are killed with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import Final, TypeVar

import msgspec

from fastn_p2p_client.errors import HandlerFailed, InternalError
from fastn_p2p_client.ipc.messages import UNDECODABLE, ErrorReply, Message

from ..identity.one_shot_worker import (
    MODULE,
    WORKER_TIMEOUT,
    CheckConfig,
    Data,
    DeclaredPermissions,
    DescribeData,
    DescribeProtocol,
    RunOnDelete,
    WorkerLimits,
    WorkerReply,
    WorkerTask,
)
from ..storage.identity_store import BindingFile, IdentityFile
from .context import GatewayContext

_MAX_OUTPUT: Final = 1024 * 1024
"""Bytes of the worker's output that are kept, from the end."""
_MAX_LOGGED: Final = 2000
"""Bytes of its standard error that are logged, from the end."""
_PURPOSES: Final[dict[type[Message], str]] = {
    CheckConfig: "that checks its config",
    RunOnDelete: "of its on_delete",
    DescribeData: "that looks at its workspace",
    DescribeProtocol: "that imports it",
}

_answer: Final = msgspec.msgpack.Decoder(WorkerReply)

T = TypeVar("T")
_Question = TypeVar("_Question", CheckConfig, RunOnDelete, DescribeData)

log = logging.getLogger(__name__)


async def check_config(
    context: GatewayContext, identity: IdentityFile, record: BindingFile, granted: tuple[str, ...]
) -> tuple[str, ...]:
    """Check that the binding would start with the record's config. Return the permissions that it declares.

    If it declares others than those in ``granted``, its ``on_check`` has not run.

    Raises:
        InvalidConfig: the protocol rejects the config.
        ProtocolNotInstalled: no installed package has the protocol.
        HandlerFailed: the protocol's code failed, or took longer than ``WORKER_TIMEOUT``.
    """
    question = _about(CheckConfig, context, identity, record, granted)
    declared = await run_one_shot(
        context.worker_slots, context.worker_limits, question, identity.name, DeclaredPermissions
    )
    return () if declared is None else declared.lines


async def run_on_delete(context: GatewayContext, identity: IdentityFile, record: BindingFile) -> None:
    """Run ``on_delete`` of the protocol's code, if it was ever activated. Errors are logged."""
    if not context.store.is_created(identity.name, record.protocol, record.instance):
        return
    question = _about(RunOnDelete, context, identity, record)
    try:
        await run_one_shot(context.worker_slots, context.worker_limits, question, identity.name)
    except Exception as error:
        log.error("on_delete of %s (%s) of %s: %s", record.protocol, record.instance, identity.name, error)


async def describe_data(context: GatewayContext, identity: IdentityFile, record: BindingFile) -> str | None:
    """Return the protocol's description of the data in the workspace; None if it has none.

    Raises:
        ProtocolNotInstalled: no installed package has the protocol.
        HandlerFailed: the protocol's code failed, or took longer than ``WORKER_TIMEOUT``.
    """
    question = _about(DescribeData, context, identity, record)
    data = await run_one_shot(context.worker_slots, context.worker_limits, question, identity.name, Data)
    return None if data is None else data.text


def _about(
    kind: type[_Question],
    context: GatewayContext,
    identity: IdentityFile,
    record: BindingFile,
    granted: tuple[str, ...] | None = None,
) -> _Question:
    """Return a question about the binding. By default its permissions are those that are stored."""
    if granted is None:
        granted = context.permissions.granted(identity.name, record.protocol, record.instance)
    return kind(
        identity=identity.name,
        key=bytes(identity.key),
        protocol=record.protocol,
        instance=record.instance,
        workspace=str(context.store.workspace(identity.name, record.protocol, record.instance)),
        config=bytes(record.config),
        code=record.code,
        home=str(context.home.path),
        granted=granted,
    )


async def run_one_shot(
    slots: asyncio.Semaphore,
    limits: WorkerLimits,
    question: CheckConfig | RunOnDelete | DescribeData | DescribeProtocol,
    owner: str,
    expected: type[T] | None = None,
) -> T | None:
    """Run one question in a worker and return the reply, which must be an ``expected``.

    Args:
        slots: limits the workers that run at the same time.
        limits: limits of the worker.
        question: the question.
        owner: name of the identity, for errors.
        expected: type of the reply; None for ``Ack``.

    Raises:
        HandlerFailed: the worker ended without a reply, or took too long.
        P2PError: the error that the worker replied with.
    """
    async with slots:
        reply = await _run_worker(limits, question, owner)
    if isinstance(reply, ErrorReply):
        raise reply.error()
    if expected is None:
        return None
    if not isinstance(reply, expected):
        raise InternalError(reason=f"the worker replied to {type(question).__name__} with {type(reply).__name__}")
    return reply


async def _run_worker(
    limits: WorkerLimits, question: CheckConfig | RunOnDelete | DescribeData | DescribeProtocol, owner: str
) -> WorkerReply:
    process_for = f"the process {_PURPOSES[type(question)]}"
    # -P: modules in the daemon's working directory are not imported.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        MODULE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    output = noise = b""
    try:
        async with asyncio.timeout(WORKER_TIMEOUT):
            output, noise = await _communicate(process, msgspec.msgpack.encode(WorkerTask(question, limits)))
        answer: WorkerReply = _answer.decode(output)
        return answer
    except TimeoutError as error:
        reason = f"{process_for} took longer than {WORKER_TIMEOUT:g} s"
        raise HandlerFailed(peer=owner, protocol=question.protocol, reason=reason) from error
    except UNDECODABLE as error:
        words = noise[-_MAX_LOGGED:].decode("utf-8", "replace")
        reason = f"{process_for} ended with exit code {process.returncode}"
        log.error("%s: %s: %s", question.protocol, reason, words)
        raise HandlerFailed(peer=owner, protocol=question.protocol, reason=reason) from error
    finally:
        await process.wait()


async def _communicate(process: asyncio.subprocess.Process, question: bytes) -> tuple[bytes, bytes]:
    """Send the question, wait until the worker has ended, and return its output and its standard error.

    Kills the processes that it started, which are in its process group, and the worker itself if it is cancelled. The
    supervisor's reaper finds those that left the group. Later its number may belong to a group of others.
    """
    outputs = [asyncio.create_task(_read_tail(pipe)) for pipe in (process.stdout, process.stderr)]
    try:
        if process.stdin is not None:
            with contextlib.suppress(RuntimeError, ConnectionError):  # uvloop raises if the worker has ended already
                process.stdin.write(question)
            process.stdin.close()
        await _wait_for_exit(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    output, noise = await asyncio.gather(*outputs)
    await process.wait()  # sets its exit code
    return output, noise


async def _wait_for_exit(pid: int) -> None:
    """Wait until the process has ended.

    ``Process.wait`` also waits for its pipes, which other processes may hold open.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def _read_tail(pipe: asyncio.StreamReader | None) -> bytes:
    """Return the last ``_MAX_OUTPUT`` bytes."""
    kept = b""
    while pipe is not None and (chunk := await pipe.read(65536)):
        kept = (kept + chunk)[-_MAX_OUTPUT:]
    return kept
