"""``python -m fastn_p2p_actors.identity.one_shot_worker``: protocol code in a process of its own, which ends at once.

For what is asked while an identity is offline, and for code that nobody has tried yet: nothing that it does reaches
the gateway or an identity that serves. Standard input is one question in msgpack, standard output the answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import (
    Ack,
    ErrorReply,
    Message,
    encode,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.protocol import BindingContext, request_handlers, stream_handlers

from ..runtime import process_setup
from .hosted_binding import (
    check_binding,
    check_class,
    delete_binding,
    describe_binding,
)

__all__ = [
    "MODULE",
    "WORKER_TIMEOUT",
    "CheckConfig",
    "Data",
    "DescribeData",
    "DescribeProtocol",
    "ProtocolDescription",
    "RunOnDelete",
    "WorkerReply",
    "WorkerTask",
    "main",
]

MODULE: Final = "fastn_p2p_actors.identity.one_shot_worker"
WORKER_TIMEOUT: Final = 10
_MAX_DESCRIPTION: Final = 200
_NOBODY: Final = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")


class _AboutBinding(Message, frozen=True, kw_only=True):
    identity: str
    key: bytes
    protocol: str
    instance: str
    workspace: str
    config: bytes
    """JSON."""
    code: str = ""
    """Where the protocol's class is, as in the binding's ``config.json``."""
    home: str = ""


class CheckConfig(_AboutBinding, frozen=True, kw_only=True, tag=400):
    """Would it start with this config? Answered by ``Ack``."""


class RunOnDelete(_AboutBinding, frozen=True, kw_only=True, tag=401):
    """Runs its ``on_delete``. Answered by ``Ack``."""


class DescribeData(_AboutBinding, frozen=True, kw_only=True, tag=403):
    """Which data does its workspace hold? Answered by ``Data``."""


class DescribeProtocol(Message, frozen=True, tag=402):
    """What kind of protocol is this? Answered by ``ProtocolDescription``."""

    protocol: str
    code: str


class ProtocolDescription(Message, frozen=True, tag=450):
    text: str
    """The first line of its docstring."""
    public: bool
    requests: bool
    streams: bool
    schema: dict[str, Any]
    """JSON Schema of its config."""


class Data(Message, frozen=True, tag=451):
    text: str | None
    """As ``Protocol.describe_data`` returns it."""


class WorkerTask(msgspec.Struct, frozen=True):
    """One question, and how much memory may go into the answer."""

    question: CheckConfig | RunOnDelete | DescribeData | DescribeProtocol
    memory: int = 0
    """As ``set_memory_limit`` has it."""


WorkerReply: TypeAlias = Ack | ProtocolDescription | Data | ErrorReply


def main() -> None:
    """Answers the one question. Ends by itself, whatever the protocol does, a second after nobody waits any more."""
    process_setup.die_with_parent()
    process_setup.make_undumpable()
    signal.alarm(WORKER_TIMEOUT + 1)
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=WorkerTask)
    process_setup.forbid_core_files()
    process_setup.set_memory_limit(order.memory)
    answer = os.dup(1)
    os.set_inheritable(answer, False)
    os.dup2(2, 1)  # what a protocol prints when it is imported is no answer
    pid = os.getpid()
    reply: WorkerReply
    try:
        reply = asyncio.run(_answered(order.question))
    except P2PError as error:
        reply = ErrorReply.of(error)
    if os.getpid() != pid:
        os._exit(0)  # a child that the protocol's code has forked, and that has come back
    with os.fdopen(answer, "wb") as output:
        output.write(encode(reply))
    os._exit(0)  # threads and exit handlers of the protocol's have no say in when this ends


async def _answered(question: CheckConfig | RunOnDelete | DescribeData | DescribeProtocol) -> WorkerReply:
    if isinstance(question, DescribeProtocol):
        return _described(question)
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
    work = check_binding if isinstance(question, CheckConfig) else delete_binding
    await work(context, question.config, question.code)
    return Ack()


def _described(question: DescribeProtocol) -> ProtocolDescription:
    nothing = BindingContext("", _NOBODY, question.protocol, "", Path(os.devnull), None)
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
