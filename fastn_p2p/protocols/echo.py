"""Echo: return each message to its caller. The smallest protocol, and a good one to copy."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.protocol import Protocol, request


class EchoRequest(msgspec.Struct, frozen=True):
    message: str


class EchoReply(msgspec.Struct, frozen=True):
    echoed: str


class Echo(Protocol):
    """Return each message to its caller.

    The reply to ``{"message": "hi"}`` is ``{"echoed": "Echo: hi"}``. By default everyone may call it.

    Raises (as application errors, with ``{"length", "max_length"}``):
        MessageEmpty: the message is empty.
        MessageTooLong: the message has more than ``max_length`` characters.
    """

    public = True

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        max_length: Annotated[int, msgspec.Meta(ge=1)] = 1000
        """Characters of the longest message."""

    config: Config

    @request
    async def echo(self, request: EchoRequest) -> EchoReply:
        length, longest = len(request.message), self.config.max_length
        if 0 < length <= longest:
            return EchoReply(f"Echo: {request.message}")
        data = {"length": length, "max_length": longest}
        if length == 0:
            raise ApplicationError("MessageEmpty", "the message is empty", data)
        raise ApplicationError("MessageTooLong", f"the message has {length} characters, {longest} are allowed", data)
