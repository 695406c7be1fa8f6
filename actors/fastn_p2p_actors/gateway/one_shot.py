"""Has protocol code run in a short-lived process: see ``identity.aside``.

Such a process has ``WORKER_TIMEOUT`` and a bound on its memory, and whatever it has started is killed with it.
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
from fastn_p2p_client.ipc.messages import (
    UNDECODABLE,
    ErrorReply,
    Message,
)

from ..identity.one_shot_worker import (
    MODULE,
    WORKER_TIMEOUT,
    CheckConfig,
    Data,
    DescribeData,
    DescribeProtocol,
    RunOnDelete,
    WorkerReply,
    WorkerTask,
)
from ..storage.identity_store import (
    BindingFile,
    IdentityFile,
)
from .context import GatewayContext

__all__ = ["check_config", "describe_data", "run_on_delete", "run_one_shot"]

_MAX_OUTPUT: Final = 1024 * 1024
_MAX_WORDS: Final = 2000
_ERRANDS: Final[dict[type[Message], str]] = {
    CheckConfig: "that checks its config",
    RunOnDelete: "of its on_delete",
    DescribeData: "that looks at its workspace",
    DescribeProtocol: "that imports it",
}

_answer: Final = msgspec.msgpack.Decoder(WorkerReply)

T = TypeVar("T")
_Question = TypeVar("_Question", CheckConfig, RunOnDelete, DescribeData)

log = logging.getLogger(__name__)


async def check_config(desk: GatewayContext, identity: IdentityFile, record: BindingFile) -> None:
    """Whether the binding would start with the config that the record has.

    Raises:
        InvalidConfig, ProtocolNotInstalled: as they say.
        HandlerFailed: the protocol's code fails, or takes longer than ``WORKER_TIMEOUT``.
    """
    await run_one_shot(
        desk.worker_slots, desk.settings.memory, _about(CheckConfig, desk, identity, record), identity.name
    )


async def run_on_delete(desk: GatewayContext, identity: IdentityFile, record: BindingFile) -> None:
    """Tell the protocol's code that the binding goes, if it knows that there is one. What it raises is logged."""
    if not desk.store.is_created(identity.name, record.protocol, record.instance):
        return
    question = _about(RunOnDelete, desk, identity, record)
    try:
        await run_one_shot(desk.worker_slots, desk.settings.memory, question, identity.name)
    except Exception as error:
        log.error("on_delete of %s (%s) of %s: %s", record.protocol, record.instance, identity.name, error)


async def describe_data(desk: GatewayContext, identity: IdentityFile, record: BindingFile) -> str | None:
    """Return the words of the protocol's code about the data in the workspace; None where it has none. Raises like
    ``check_config``."""
    question = _about(DescribeData, desk, identity, record)
    data = await run_one_shot(desk.worker_slots, desk.settings.memory, question, identity.name, Data)
    return None if data is None else data.text


def _about(kind: type[_Question], desk: GatewayContext, identity: IdentityFile, record: BindingFile) -> _Question:
    return kind(
        identity=identity.name,
        key=bytes(identity.key),
        protocol=record.protocol,
        instance=record.instance,
        workspace=str(desk.store.workspace(identity.name, record.protocol, record.instance)),
        config=bytes(record.config),
        code=record.code,
        home=str(desk.home.path),
    )


async def run_one_shot(
    turns: asyncio.Semaphore,
    memory: int,
    question: CheckConfig | RunOnDelete | DescribeData | DescribeProtocol,
    who: str,
    expected: type[T] | None = None,
) -> T | None:
    """The answer, which is an ``expected``.

    Args:
        who: whose protocol it is, for the errors.

    Raises:
        P2PError: what the process says instead.
        HandlerFailed: it says nothing.
    """
    async with turns:
        reply = await _ask(memory, question, who)
    if isinstance(reply, ErrorReply):
        raise reply.error()
    if expected is None:
        return None
    if not isinstance(reply, expected):
        raise InternalError(reason=f"{type(question).__name__} was answered with {type(reply).__name__}")
    return reply


async def _ask(
    memory: int, question: CheckConfig | RunOnDelete | DescribeData | DescribeProtocol, who: str
) -> WorkerReply:
    process_for = f"the process {_ERRANDS[type(question)]}"
    # -P: what lies in the daemon's working directory is not imported.
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
            output, noise = await _communicate(process, msgspec.msgpack.encode(WorkerTask(question, memory)))
        answer: WorkerReply = _answer.decode(output)
        return answer
    except TimeoutError as error:
        reason = f"{process_for} took longer than {WORKER_TIMEOUT:g} s"
        raise HandlerFailed(peer=who, protocol=question.protocol, reason=reason) from error
    except UNDECODABLE as error:
        words = noise[-_MAX_WORDS:].decode("utf-8", "replace")
        reason = f"{process_for} ended with exit code {process.returncode}"
        log.error("%s: %s: %s", question.protocol, reason, words)
        raise HandlerFailed(peer=who, protocol=question.protocol, reason=reason) from error
    finally:
        # What it has started is in its process group, unless that has left it: then the supervisor finds it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _communicate(process: asyncio.subprocess.Process, question: bytes) -> tuple[bytes, bytes]:
    """What it writes until it has ended: children of its that hold its pipes open are not waited for."""
    if process.stdin is not None:
        with contextlib.suppress(RuntimeError, ConnectionError):  # it has ended before it was asked: uvloop raises
            process.stdin.write(question)
        process.stdin.close()
    outputs = [asyncio.create_task(_read_tail(pipe)) for pipe in (process.stdout, process.stderr)]
    await _wait_for_exit(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    output, noise = await asyncio.gather(*outputs)
    await process.wait()  # until its exit code is known
    return output, noise


async def _wait_for_exit(pid: int) -> None:
    """Until the process has ended. ``Process.wait`` waits for the ends of its pipes as well, which others may hold."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(pidfd, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def _read_tail(pipe: asyncio.StreamReader | None) -> bytes:
    """The last ``_MAX_OUTPUT`` bytes."""
    kept = b""
    while pipe is not None and (chunk := await pipe.read(65536)):
        kept = (kept + chunk)[-_MAX_OUTPUT:]
    return kept
