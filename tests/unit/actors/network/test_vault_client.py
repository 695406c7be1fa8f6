"""Vault client: requests for signatures that come together go to the vault together."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.vault_client import VaultClient
from fastn_p2p_actors.vault.messages import (
    MAX_BATCH,
    SignBatch,
    SignDelegation,
    SignedBatch,
    SignedDelegation,
    SignedRecord,
    SignRecord,
)
from fastn_p2p_client.errors import DaemonBusy, DeadlineExceeded, IdentityNotFound, InternalError, P2PError
from fastn_p2p_client.ipc.messages import ErrorReply, encode
from fastn_p2p_client.ipc.request_channel import Response
from fastn_p2p_client.limits import MAX_HEADER


class Channel:
    """Channel to a vault that knows every identity but ``nobody``.

    Attributes:
        batches: numbers of the requests in each message.
        sizes: bytes of each message.
        error: outcome of each request, if it is not None.
        surplus: replies that the vault sends too many.
    """

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.sizes: list[int] = []
        self.error: P2PError | None = None
        self.surplus = 0

    async def request(self, message: msgspec.Struct, *, timeout: float) -> Response:
        assert isinstance(message, SignBatch)
        self.batches.append(len(message.requests))
        self.sizes.append(len(encode(message)))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        replies = tuple(map(_reply, message.requests)) * (1 + self.surplus)
        return Response(encode(SignedBatch(replies)), b"")


def _reply(request: SignDelegation | SignRecord) -> SignedDelegation | SignedRecord | ErrorReply:
    if request.identity == "nobody":
        return ErrorReply.of(IdentityNotFound(identity="nobody"))
    blob = request.identity.encode()
    return SignedRecord(blob, 1) if isinstance(request, SignRecord) else SignedDelegation(blob, 1)


def client_of(channel: Channel) -> VaultClient:
    return VaultClient(cast(Any, channel))


async def test_requests_of_one_iteration_are_batched() -> None:
    channel = Channel()
    client = client_of(channel)
    names = [f"id{number}" for number in range(2 * MAX_BATCH + 3)]
    signed = await asyncio.gather(*map(client.delegation, names))
    assert [each.blob.decode() for each in signed] == names
    assert channel.batches == [MAX_BATCH, MAX_BATCH, 3]


async def test_large_requests_fit_into_a_header() -> None:
    channel = Channel()
    client = client_of(channel)
    large = SignRecord("alice", ("x" * (MAX_HEADER // 5),), ())
    await asyncio.gather(*(client.record(large) for _ in range(MAX_BATCH)))
    assert sum(channel.batches) == MAX_BATCH
    assert max(channel.sizes) <= MAX_HEADER


async def test_each_request_has_its_own_outcome() -> None:
    client = client_of(Channel())
    outcomes = await asyncio.gather(
        client.delegation("nobody"), client.record(SignRecord("bob", (), ())), return_exceptions=True
    )
    assert isinstance(outcomes[0], IdentityNotFound)
    assert isinstance(outcomes[1], SignedRecord)


@pytest.mark.parametrize(
    ("error", "surplus", "expected"),
    [(DeadlineExceeded(seconds=1), 0, DaemonBusy), (None, 1, InternalError)],
)
async def test_vault_that_fails_ends_every_request(
    error: P2PError | None, surplus: int, expected: type[P2PError]
) -> None:
    channel = Channel()
    channel.error, channel.surplus = error, surplus
    client = client_of(channel)
    outcomes = await asyncio.gather(client.delegation("alice"), client.delegation("bob"), return_exceptions=True)
    assert [type(each) for each in outcomes] == [expected, expected]


async def test_request_that_is_given_up_leaves_the_others() -> None:
    client = client_of(Channel())
    given_up, other = (asyncio.ensure_future(client.delegation(name)) for name in ("alice", "bob"))
    await asyncio.sleep(0)
    given_up.cancel()
    assert (await other).blob == b"bob"
    assert given_up.cancelled()
