"""``python -m fastn_p2p_actors.identity.check``: would a protocol start with this config?

For identities that are offline: protocol code runs here, in a process of its own that ends at once, and not in the
gateway. Standard input is one ``Question`` in msgpack, standard output one ``Done`` or ``Failure``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.messages import Done, Failure, encode
from fastn_p2p_client.protocol import BindingContext

from .hosted import check_binding

__all__ = ["CHECK_SECONDS", "MODULE", "Question", "main"]

MODULE: Final = "fastn_p2p_actors.identity.check"
CHECK_SECONDS: Final = 10


class Question(msgspec.Struct, frozen=True, kw_only=True):
    identity: str
    key: bytes
    protocol: str
    instance: str
    workspace: str
    config: bytes
    """JSON."""


def main() -> None:
    """Answers the one question. Ends by itself, whatever the protocol does, a second after nobody waits any more."""
    signal.alarm(CHECK_SECONDS + 1)
    question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Question)
    answer = os.dup(1)
    os.dup2(2, 1)  # what a protocol prints when it is imported is no answer
    context = BindingContext(
        question.identity,
        PublicKey(question.key),
        question.protocol,
        question.instance,
        Path(question.workspace),
        None,
    )
    reply: Done | Failure = Done()
    try:
        asyncio.run(check_binding(context, question.config))
    except P2PError as error:
        reply = Failure.of(error)
    with os.fdopen(answer, "wb") as output:
        output.write(encode(reply))


if __name__ == "__main__":
    main()
