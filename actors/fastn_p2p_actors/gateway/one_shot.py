"""Has protocol code run in a short-lived process: see ``identity.aside``.

Such a process has ``ASIDE_SECONDS`` and a bound on its memory, and whatever it has started is killed with it.
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
    Failure,
    Message,
)

from ..identity.one_shot_worker import (
    ASIDE_SECONDS,
    MODULE,
    Answer,
    Check,
    Data,
    Delete,
    Describe,
    DescribeData,
    Order,
)
from ..storage.identity_store import (
    BindingFile,
    IdentityFile,
)
from .context import Desk

__all__ = ["ask_aside", "check_config", "describe_data", "run_on_delete"]

_MAX_OUTPUT: Final = 1024 * 1024
_MAX_WORDS: Final = 2000
_ERRANDS: Final[dict[type[Message], str]] = {
    Check: "that checks its config",
    Delete: "of its on_delete",
    DescribeData: "that looks at its workspace",
    Describe: "that imports it",
}

_answer: Final = msgspec.msgpack.Decoder(Answer)

T = TypeVar("T")
_Question = TypeVar("_Question", Check, Delete, DescribeData)

log = logging.getLogger(__name__)


async def check_config(desk: Desk, identity: IdentityFile, record: BindingFile) -> None:
    """Whether the binding would start with the config that the record has.

    Raises:
        InvalidConfig, ProtocolNotInstalled: as they say.
        HandlerFailed: the protocol's code fails, or takes longer than ``ASIDE_SECONDS``.
    """
    await ask_aside(desk.turns_aside, desk.settings.memory, _about(Check, desk, identity, record), identity.name)


async def run_on_delete(desk: Desk, identity: IdentityFile, record: BindingFile) -> None:
    """Tell the protocol's code that the binding goes, if it knows that there is one. What it raises is logged."""
    if not desk.store.is_created(identity.name, record.protocol, record.instance):
        return
    question = _about(Delete, desk, identity, record)
    try:
        await ask_aside(desk.turns_aside, desk.settings.memory, question, identity.name)
    except Exception as error:
        log.error("on_delete of %s (%s) of %s: %s", record.protocol, record.instance, identity.name, error)


async def describe_data(desk: Desk, identity: IdentityFile, record: BindingFile) -> str | None:
    """Return the words of the protocol's code about the data in the workspace; None where it has none. Raises like
    ``check_config``."""
    question = _about(DescribeData, desk, identity, record)
    data = await ask_aside(desk.turns_aside, desk.settings.memory, question, identity.name, Data)
    return None if data is None else data.text


def _about(kind: type[_Question], desk: Desk, identity: IdentityFile, record: BindingFile) -> _Question:
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


async def ask_aside(
    turns: asyncio.Semaphore,
    memory: int,
    question: Check | Delete | DescribeData | Describe,
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
    if isinstance(reply, Failure):
        raise reply.error()
    if expected is None:
        return None
    if not isinstance(reply, expected):
        raise InternalError(reason=f"{type(question).__name__} was answered with {type(reply).__name__}")
    return reply


async def _ask(memory: int, question: Check | Delete | DescribeData | Describe, who: str) -> Answer:
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
        async with asyncio.timeout(ASIDE_SECONDS):
            output, noise = await _conversation(process, msgspec.msgpack.encode(Order(question, memory)))
        answer: Answer = _answer.decode(output)
        return answer
    except TimeoutError as error:
        reason = f"{process_for} took longer than {ASIDE_SECONDS:g} s"
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


async def _conversation(process: asyncio.subprocess.Process, question: bytes) -> tuple[bytes, bytes]:
    """What it writes until it has ended: children of its that hold its pipes open are not waited for."""
    if process.stdin is not None:
        with contextlib.suppress(RuntimeError, ConnectionError):  # it has ended before it was asked: uvloop raises
            process.stdin.write(question)
        process.stdin.close()
    outputs = [asyncio.create_task(_drained(pipe)) for pipe in (process.stdout, process.stderr)]
    await _ended(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    output, noise = await asyncio.gather(*outputs)
    await process.wait()  # until its exit code is known
    return output, noise


async def _ended(pid: int) -> None:
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


async def _drained(pipe: asyncio.StreamReader | None) -> bytes:
    """The last ``_MAX_OUTPUT`` bytes."""
    kept = b""
    while pipe is not None and (chunk := await pipe.read(65536)):
        kept = (kept + chunk)[-_MAX_OUTPUT:]
    return kept
