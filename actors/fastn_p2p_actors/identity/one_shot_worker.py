"""Worker ``python -m fastn_p2p_actors.identity.one_shot_worker``: a process that runs protocol code once.

It answers questions about offline identities, and runs code that was never run before. Its failures do not reach the
gateway or a serving identity. Standard input is one task in msgpack, standard output the reply.
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
from fastn_p2p_client.ipc.messages import Ack, ErrorReply, Message, encode
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.protocol import BindingContext, request_handlers, stream_handlers

from ..runtime import process_setup
from .hosted_binding import check_binding, check_class, delete_binding, describe_binding

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


class CheckConfig(_AboutBinding, frozen=True, kw_only=True, tag=400):
    """Check that the protocol would start with this config. The reply is ``Ack``."""


class RunOnDelete(_AboutBinding, frozen=True, kw_only=True, tag=401):
    """Run its ``on_delete``. The reply is ``Ack``."""


class DescribeData(_AboutBinding, frozen=True, kw_only=True, tag=403):
    """Describe the data in its workspace. The reply is ``Data``."""


class DescribeProtocol(Message, frozen=True, tag=402):
    """Describe a protocol. The reply is ``ProtocolDescription``."""

    protocol: str
    code: str


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


class WorkerTask(msgspec.Struct, frozen=True):
    """Question, and the memory for answering it."""

    question: CheckConfig | RunOnDelete | DescribeData | DescribeProtocol
    memory: int = 0
    """Bytes for ``set_memory_limit``; 0 for no limit."""


WorkerReply: TypeAlias = Ack | ProtocolDescription | Data | ErrorReply


def main() -> None:
    """Run the task. The process ends a second after its time limit, whatever the protocol's code does."""
    process_setup.die_with_parent()
    process_setup.make_undumpable()
    signal.alarm(WORKER_TIMEOUT + 1)
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=WorkerTask)
    process_setup.forbid_core_files()
    process_setup.set_memory_limit(task.memory)
    answer = os.dup(1)
    os.set_inheritable(answer, False)
    os.dup2(2, 1)  # the output of protocol code must not mix with the reply
    pid = os.getpid()
    reply: WorkerReply
    try:
        reply = asyncio.run(_run(task.question))
    except P2PError as error:
        reply = ErrorReply.of(error)
    if os.getpid() != pid:
        os._exit(0)  # a child that the protocol's code forked and that returned here
    with os.fdopen(answer, "wb") as output:
        output.write(encode(reply))
    os._exit(0)  # threads and exit handlers of the protocol must not delay the end


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
    work = check_binding if isinstance(question, CheckConfig) else delete_binding
    await work(context, question.config, question.code)
    return Ack()


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
