"""Echo: says what it was told. The smallest protocol there is, and the one to start a new one from."""

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
    """Says what it was told.

    Answers ``{"message": "hi"}`` with ``{"echoed": "Echo: hi"}``. Anyone may use it, unless it was added otherwise.

    Raises (as application errors, with ``{"length", "max_length"}``):
        MessageEmpty: there is nothing to say.
        MessageTooLong: the message has more than ``max_length`` characters.
    """

    public = True

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        max_length: Annotated[int, msgspec.Meta(ge=1)] = 1000
        """Characters in the longest message that is echoed."""

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
