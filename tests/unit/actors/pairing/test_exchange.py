"""Exchange of a pairing over channels in memory: proof of the code, commitment, fingerprint."""

import asyncio

import msgspec
import pytest

from fastn_p2p_actors.credentials.password_exchange import PasswordExchange
from fastn_p2p_actors.credentials.secret_box import seal_box
from fastn_p2p_actors.network.transport.message_channel import ChannelClosed
from fastn_p2p_actors.pairing.exchange import (
    Commitment,
    Exchange,
    Introduction,
    Verdict,
    VerdictReceived,
    WrongProof,
    new_introduction,
)
from fastn_p2p_client.errors import BadMessage

CODE = "tunnel bundle sonic slight"
HOST, JOINER, OTHER = (bytes((number,)) * 32 for number in (1, 2, 3))
ALICE = new_introduction("alice", "fastn1alice")
BOB = new_introduction("bob", "fastn1bob")


class MemoryChannel:
    """End of a channel in memory. ``sent`` has the messages that this end has sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.other: MemoryChannel = self

    async def send(self, message: bytes) -> None:
        self.sent.append(message)
        self.other._incoming.put_nowait(message)

    async def receive(self) -> bytes:
        message = await self._incoming.get()
        if message is None:
            raise ChannelClosed("the other daemon has ended")
        return message

    def close(self) -> None:
        self.other._incoming.put_nowait(None)


def channels() -> tuple[MemoryChannel, MemoryChannel]:
    one, two = MemoryChannel(), MemoryChannel()
    one.other, two.other = two, one
    return one, two


async def host_side(exchange: Exchange) -> Introduction:
    try:
        commitment = await exchange.prove_as_host()
    except WrongProof:
        await exchange.reject_code()
        raise
    return await exchange.introduce_as_host(ALICE, commitment)


def sides(host_code: str = CODE, joiner_code: str = CODE, seen_by_joiner: bytes = HOST) -> tuple[Exchange, Exchange]:
    one, two = channels()
    return (
        Exchange(one, host_code, HOST, JOINER, is_host=True),
        Exchange(two, joiner_code, JOINER, seen_by_joiner, is_host=False),
    )


async def test_both_sides_get_the_introduction_and_the_same_fingerprint() -> None:
    host, joiner = sides()
    to_host, to_joiner = await asyncio.gather(host_side(host), joiner.prove_as_joiner(BOB))
    assert (to_host, to_joiner) == (BOB, ALICE)
    assert host.fingerprint() == joiner.fingerprint()
    assert [len(part) for part in host.fingerprint().split()] == [3, 3, 3]
    await host.send(Verdict("a-code", "a reason"))
    assert await joiner.receive(Verdict) == Verdict("a-code", "a reason")


async def test_fingerprints_differ_from_one_exchange_to_the_next() -> None:
    prints = set()
    for _ in range(3):
        host, joiner = sides()
        await asyncio.gather(host_side(host), joiner.prove_as_joiner(BOB))
        prints.add(host.fingerprint())
    assert len(prints) == 3


@pytest.mark.parametrize("joiner_code", ["tunnel bundle sonic abbey", "abbey bundle sonic slight", ""])
async def test_other_words_prove_nothing_on_either_side(joiner_code: str) -> None:
    host, joiner = sides(joiner_code=joiner_code)
    results = await asyncio.gather(host_side(host), joiner.prove_as_joiner(BOB), return_exceptions=True)
    assert [type(each) for each in results] == [WrongProof, WrongProof]


async def test_a_wrong_guess_is_an_attempt_even_if_its_sender_reads_no_more() -> None:
    """A host that could not tell it, and took it for no attempt, would let an attacker guess on and on."""
    one, two = channels()
    host = Exchange(one, CODE, HOST, JOINER, is_host=True)
    guess = PasswordExchange(b"tunnel bundle sonic abbey", HOST, JOINER, is_first=False)
    proving = asyncio.create_task(host.prove_as_host())
    await two.send(guess.message)
    guess.finish(await two.receive())

    async def closed(_message: bytes) -> None:
        raise ChannelClosed("the attacker reads no more")

    one.send = closed  # type: ignore[method-assign, assignment]
    await two.send(seal_box(bytes(32), msgspec.msgpack.encode(Commitment(bytes(32)))))
    with pytest.raises(WrongProof):
        await proving


async def test_a_third_party_cannot_pass_messages_on_between_two_connections() -> None:
    """Both handshakes proved its endpoint, not the peer's, and the keys depend on the endpoints."""
    host, joiner = sides(seen_by_joiner=OTHER)
    results = await asyncio.gather(host_side(host), joiner.prove_as_joiner(BOB), return_exceptions=True)
    assert [type(each) for each in results] == [WrongProof, WrongProof]


async def test_replayed_messages_prove_nothing() -> None:
    one, two = channels()
    host, joiner = (
        Exchange(one, CODE, HOST, JOINER, is_host=True),
        Exchange(two, CODE, JOINER, HOST, is_host=False),
    )
    await asyncio.gather(host_side(host), joiner.prove_as_joiner(BOB))
    again, replaying = channels()
    second = Exchange(again, CODE, HOST, JOINER, is_host=True)
    for message in two.sent:
        await replaying.send(message)
    with pytest.raises(WrongProof):
        await second.prove_as_host()


async def test_a_host_without_the_code_learns_no_introduction() -> None:
    one, two = channels()
    joiner = Exchange(two, CODE, JOINER, HOST, is_host=False)
    liar = PasswordExchange(b"tunnel bundle sonic abbey", HOST, JOINER, is_first=True)

    async def lie() -> None:
        liar.finish(await one.receive())
        await one.send(liar.message)
        await one.receive()
        await one.send(seal_box(bytes(32), msgspec.msgpack.encode(ALICE)))

    results = await asyncio.gather(lie(), joiner.prove_as_joiner(BOB), return_exceptions=True)
    assert isinstance(results[1], WrongProof)
    assert len(two.sent) == 2, "password exchange and commitment, no introduction"


async def test_a_joiner_cannot_change_its_introduction_after_it_has_seen_the_host_s() -> None:
    host, joiner = sides()

    async def cheat() -> None:
        await joiner.prove_as_joiner(new_introduction("mallory", "fastn1mallory"))

    async def host_with_another_commitment() -> Introduction:
        await host.prove_as_host()
        return await host.introduce_as_host(ALICE, Commitment(bytes(32)))

    results = await asyncio.gather(host_with_another_commitment(), cheat(), return_exceptions=True)
    assert isinstance(results[0], BadMessage)


@pytest.mark.parametrize("message", [b"", b"A", b"B" + bytes(32), b"A" * 33, b"B" * 33, bytes(33), bytes(1000)])
async def test_garbage_in_place_of_a_password_exchange_is_no_attempt(message: bytes) -> None:
    one, two = channels()
    host = Exchange(one, CODE, HOST, JOINER, is_host=True)
    await two.send(message)
    two.close()
    with pytest.raises((BadMessage, ChannelClosed)):
        await host.prove_as_host()


async def test_a_joiner_that_goes_before_its_proof_has_learned_nothing_and_is_no_attempt() -> None:
    one, two = channels()
    host = Exchange(one, CODE, HOST, JOINER, is_host=True)
    await two.send(PasswordExchange(CODE.encode(), HOST, JOINER, is_first=False).message)
    two.close()
    with pytest.raises(ChannelClosed):
        await host.prove_as_host()
    assert len(one.sent) == 1, "the host has sent its part of the password exchange, and nothing under the key"


async def test_a_verdict_before_its_turn_says_why_the_host_has_ended() -> None:
    host, joiner = sides()

    async def refuse() -> None:
        await host.prove_as_host()
        await host.send(Verdict("a-code", "a reason"))

    results = await asyncio.gather(refuse(), joiner.prove_as_joiner(BOB), return_exceptions=True)
    assert isinstance(results[1], VerdictReceived)
    assert results[1].verdict == Verdict("a-code", "a reason")


async def test_a_message_that_is_out_of_turn_ends_the_exchange() -> None:
    host, joiner = sides()
    await asyncio.gather(host_side(host), joiner.prove_as_joiner(BOB))
    await host.send(ALICE)
    with pytest.raises(BadMessage):
        await joiner.receive(Verdict)
