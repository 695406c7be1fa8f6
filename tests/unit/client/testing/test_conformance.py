"""Conformance checks pass in memory, and name the fault of a protocol that does not conform."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fastn_p2p_client.protocol import request
from fastn_p2p_client.testing import Conformance, ProtocolClient, check_errors, check_requests, check_streams, serve

Check = Callable[[ProtocolClient], Awaitable[None]]


@pytest.mark.parametrize("check", [check_requests, check_errors, check_streams])
async def test_a_protocol_in_memory_conforms(check: Check) -> None:
    async with serve(Conformance) as contact:
        await check(contact)  # does not raise
        await check(contact)


class Forgetful(Conformance):
    @request
    async def echo(self, value: Any) -> Any:
        return None


class Indiscreet(Conformance):
    @request("crash")
    async def crash(self, secret: str) -> None:
        return None


class Stubborn(Conformance):
    @request("hold")
    async def hold(self, name: str) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("protocol", "check", "wrong"),
    [
        (Forgetful, check_requests, "the reply to a request: 'None' instead of 'True'"),
        (Indiscreet, check_errors, "no error instead of HandlerFailed"),
        (Stubborn, check_requests, "no error instead of DeadlineExceeded"),
    ],
)
async def test_a_check_says_what_does_not_conform(protocol: type[Conformance], check: Check, wrong: str) -> None:
    async with serve(protocol) as contact:
        with pytest.raises(AssertionError, match=re.escape(wrong)):
            await check(contact)
