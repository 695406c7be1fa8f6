"""The patches of the ``iroh`` binding are still needed, and change nothing but the speed.

A patch applies to a whole process, so tests that compare both run each in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastn_p2p_actors.network.transport import iroh_patches

SESSION = '''
"""What two endpoints in one process experience; prints it. argv: stock or repaired."""
import asyncio, hashlib, sys
from iroh.iroh_ffi import EndpointAddr, EndpointBuilder, Endpoint, EndpointOptions, IrohError, Preset, RelayMode
from iroh import iroh_ffi as ffi
from fastn_p2p_actors.network.transport import iroh_patches

class Local(Preset):
    def apply(self, builder):
        builder.apply_minimal()
        builder.relay_mode(RelayMode.disabled())
        builder.bind_addr("127.0.0.1:0")
        builder.bind_addr("[::1]:0")

async def attempt(work):
    try:
        return await work
    except IrohError as error:
        return f"IrohError {error.message().splitlines()[0]}"

async def main():
    if sys.argv[1] == "repaired":
        iroh_patches.install(asyncio.get_running_loop())
        assert ffi._UniffiRustBufferBuilder.write is iroh_patches._write
    else:
        ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    here, there = [await Endpoint.bind(EndpointOptions(preset=Local(), alpns=[b"test"])) for _ in range(2)]
    address = EndpointAddr(there.id(), None, [a for a in there.bound_sockets()])
    accepting = asyncio.ensure_future(there.accept_next())
    dialling = asyncio.ensure_future(here.connect(address, b"test"))
    theirs = await (await (await accepting).accept()).connect()
    ours = await dialling

    stream = await ours.open_bi()                     # ready at once
    sending, receiving = stream.send(), stream.recv()
    for size in (0, 1, 15, 16, 17, 1000, 65536):      # sizes around those at which buffers grow
        await sending.write_all(bytes(range(256)) * (size // 256) + bytes(size % 256))
    other = await theirs.accept_bi()
    total = b""
    while len(total) < 0 + 1 + 15 + 16 + 17 + 1000 + 65536:
        total += await other.recv().read(4096)
    print("received", len(total), hashlib.sha256(total).hexdigest())

    pending = asyncio.ensure_future(receiving.read(100))   # pending, then ready
    await asyncio.sleep(0)
    assert not pending.done()
    await other.send().write_all(b"now")
    print("pending", await pending)

    cancelled = asyncio.ensure_future(receiving.read(100))
    await asyncio.sleep(0.01)
    cancelled.cancel()
    print("cancelled", [type(each).__name__ for each in await asyncio.gather(cancelled, return_exceptions=True)])
    await other.send().write_all(b"after")
    print("after", await receiving.read(100))

    several = [asyncio.ensure_future(ours.open_uni()) for _ in range(20)]
    print("several", len(await asyncio.gather(*several)))

    theirs.close(7, b"enough")
    print("closed", await attempt(ours.closed()))
    print("late", await attempt(ours.open_bi()))
    print("late", await attempt(receiving.read(10)))
    wrong = asyncio.ensure_future(here.connect(address, b"wrong"))
    incoming = await there.accept_next()
    print("wrong", await attempt(incoming.accept()))
    print("wrong", await attempt(wrong))
    await here.close()
    await there.close()
    print("bound", await attempt(here.connect(address, b"test")))

asyncio.run(main())
'''


def test_the_patches_are_still_needed() -> None:
    assert iroh_patches.is_slow(), (
        "the installed iroh no longer copies byte by byte: run `make bench` without the repairs of "
        "network/transport/iroh_patches.py, and drop them (and this file) if nothing gets slower"
    )


def test_behaves_the_same_with_and_without_patches() -> None:
    """Results, errors and cancellations are equal on real endpoints."""

    def run(variant: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", SESSION, variant], capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    stock, repaired = run("stock"), run("repaired")
    assert repaired == stock
    assert [line.split()[0] for line in stock.splitlines()] == [
        "received", "pending", "cancelled", "after", "several", "closed", "late", "late", "wrong", "wrong", "bound"
    ]  # fmt: skip
    assert "IrohError" in stock


COLLECTION = '''
"""Garbage with streams in it is collected while the library holds the lock of their connection."""
import asyncio, gc
from iroh import iroh_ffi as ffi
from iroh.iroh_ffi import EndpointAddr, EndpointBuilder, Endpoint, EndpointOptions, IrohError, Preset, RelayMode
from fastn_p2p_actors.network.transport import iroh_patches

class Local(Preset):
    def apply(self, builder):
        builder.apply_minimal()
        builder.relay_mode(RelayMode.disabled())
        builder.bind_addr("127.0.0.1:0")
        builder.bind_addr("[::1]:0")

class Holder:
    def __init__(self, stream):
        self.itself, self.send, self.recv = self, stream.send(), stream.recv()

async def main():
    iroh_patches.install(asyncio.get_running_loop())
    here, there = [await Endpoint.bind(EndpointOptions(preset=Local(), alpns=[b"test"])) for _ in range(2)]
    address = EndpointAddr(there.id(), None, [a for a in there.bound_sockets()])
    accepting = asyncio.ensure_future(there.accept_next())
    dialling = asyncio.ensure_future(here.connect(address, b"test"))
    theirs = await (await (await accepting).accept()).connect()
    ours = await dialling
    ending = [asyncio.ensure_future(ours.closed()) for _ in range(10)]
    await asyncio.sleep(0.05)
    gc.collect()
    gc.disable()
    for _ in range(20):
        Holder(await ours.open_bi())
    wakers = ffi._UniffiContinuationHandleMap
    remove = wakers.remove
    wakers.remove = lambda handle: (gc.collect(), remove(handle))[1]
    ours.close(7, b"enough")                          # wakes whoever waits for the end, under the lock
    wakers.remove = remove
    await asyncio.gather(*ending)
    await asyncio.sleep(0)
    print("alive")
    await here.close()
    await there.close()

asyncio.run(main())
'''


def test_garbage_collection_of_streams_in_a_callback_does_not_deadlock() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECTION], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "alive\n", done.stderr


@pytest.mark.parametrize("sizes", [[0], [1], [15, 1, 1], [16], [17], [3, 100_000, 5], [1 << 20], [7] * 100])
def test_writes_the_same_bytes(sizes: list[int]) -> None:
    """The buffer may have to grow, and the payload may be any bytes-like object."""
    ffi = iroh_patches.ffi
    chunks = [bytes((position * 7 + size) % 256 for position in range(size)) for size in sizes]
    builder = ffi._UniffiRustBufferBuilder()
    try:
        for number, chunk in enumerate(chunks):
            iroh_patches._write(builder, bytearray(chunk) if number % 2 else chunk)
        written = bytes(builder.rbuf.data[: builder.rbuf.len])
        assert builder.rbuf.len <= builder.rbuf.capacity
    finally:
        builder.discard()
    assert written == b"".join(chunks)
