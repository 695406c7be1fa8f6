"""One-shot workers: processes that run protocol code for one question (``identity.one_shot_worker``).

A worker has ``WORKER_TIMEOUT`` seconds and a memory limit. Processes that it started are killed with it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, TypeVar

import msgspec

from fastn_p2p_client.errors import HandlerFailed
from fastn_p2p_client.ipc.messages import UNDECODABLE, Message
from fastn_p2p_client.ipc.request_channel import check_reply

from ..identity.one_shot_worker import (
    WORKER_TIMEOUT,
    CheckConfig,
    DescribeData,
    DescribeProtocol,
    EmptyDirectory,
    RunOnDelete,
    WorkerLimits,
    WorkerReply,
    WorkerTask,
)

MAX_WORKERS: Final = 4
"""Number of workers that run at the same time."""
MAX_OUTPUT: Final = 1024 * 1024
"""Bytes of a worker's reply and output that are kept, from the end."""
_MAX_LOGGED: Final = 2000
"""Bytes of its standard error that are logged, from the end."""
_PURPOSES: Final[dict[type[Message], str]] = {
    CheckConfig: "that checks its config",
    RunOnDelete: "of its on_delete",
    DescribeData: "that looks at its workspace",
    DescribeProtocol: "that imports it",
    EmptyDirectory: "that deletes its files",
}

_answer: Final = msgspec.msgpack.Decoder(WorkerReply)

Question: TypeAlias = CheckConfig | RunOnDelete | DescribeData | DescribeProtocol | EmptyDirectory
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerOutput:
    """Reply of a worker that has ended, in msgpack, and the end of its standard error."""

    reply: bytes
    noise: bytes
    exit_code: int | None
    timed_out: bool = False


class WorkerStarter(Protocol):
    """Starts workers."""

    async def run(self, task: bytes, seconds: float, directory: str = "") -> WorkerOutput:
        """Run a worker with a task, and kill it after so many seconds. ``directory`` is as in ``RunWorker``."""
        ...


class OneShotWorkers:
    """Runs questions in workers, a few at the same time.

    Args:
        starter: starts them.
        limits: limits of each of them.
    """

    def __init__(self, starter: WorkerStarter, limits: WorkerLimits) -> None:
        self._starter = starter
        self._limits = limits
        self._slots = asyncio.Semaphore(MAX_WORKERS)

    async def run(self, question: Question, owner: str, expected: type[T]) -> T:
        """Run one question in a worker and return the reply, which must be an ``expected``.

        Args:
            question: the question.
            owner: name of the identity, for errors.
            expected: type of the reply.

        Raises:
            HandlerFailed: the worker ended without a reply, or took too long.
            P2PError: the error that the worker replied with.
        """
        task = msgspec.msgpack.encode(WorkerTask(question, self._limits))
        async with self._slots:
            output = await self._starter.run(task, WORKER_TIMEOUT, question.directory)
        return check_reply(_decode(question, owner, output), expected, "the worker")


def _decode(question: Question, owner: str, output: WorkerOutput) -> WorkerReply:
    process_for = f"the process {_PURPOSES[type(question)]}"
    if output.timed_out:
        reason = f"{process_for} took longer than {WORKER_TIMEOUT:g} s"
        raise HandlerFailed(peer=owner, protocol=question.protocol, reason=reason)
    try:
        answer: WorkerReply = _answer.decode(output.reply)
    except UNDECODABLE as error:
        reason = f"{process_for} ended with exit code {output.exit_code}"
        words = output.noise[-_MAX_LOGGED:].decode("utf-8", "replace")
        log.error("%s: %s: %s", question.protocol, reason, words)
        raise HandlerFailed(peer=owner, protocol=question.protocol, reason=reason) from error
    return answer
