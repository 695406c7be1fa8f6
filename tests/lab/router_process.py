"""Program of one router: forwards IP packets between two TUN devices, translates and impairs them.

``router_process.py CONTROL INSIDE OUTSIDE`` with three descriptors. It ends when the other end of ``CONTROL`` closes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections import Counter
from random import Random
from typing import Final, TypeAlias

import msgspec

from tests.lab.impairment import Block, ImpairedQueue, Impairment
from tests.lab.nat import Nat, protocol_of, remote_of

__all__ = ["BOTH", "IN", "OUT", "Change", "Forget", "GetCounts", "Request", "SetBlocks", "SetImpairment", "Start"]

OUT: Final = "out"
"""Direction from the LAN to the outside."""
IN: Final = "in"
"""Direction from the outside to the LAN."""
BOTH: Final = "both"

_BATCH: Final = 32
"""Packets that are read from a device before the other one gets its turn."""
_MTU_READ: Final = 2048


class Start(msgspec.Struct, tag=True):
    """Begin to forward."""

    kind: str
    outside: bytes
    firewall: bool
    timeout: float
    seed: int


class Change(msgspec.Struct, tag=True):
    """Use another kind of translation and another outside address, and forget all flows."""

    kind: str
    outside: bytes


class Forget(msgspec.Struct, tag=True):
    """Forget all flows."""


class SetImpairment(msgspec.Struct, tag=True):
    """Impair a direction, or both."""

    direction: str
    impairment: Impairment


class SetBlocks(msgspec.Struct, tag=True):
    """Drop these packets of a direction, or both, and no others."""

    direction: str
    blocks: list[Block]


class GetCounts(msgspec.Struct, tag=True):
    """Report how many packets were forwarded, and dropped by reason. Each request has this for its reply."""


Request: TypeAlias = Start | Change | Forget | SetImpairment | SetBlocks | GetCounts
_decode = msgspec.msgpack.Decoder(Request).decode


class _Direction:
    """Direction through the router."""

    def __init__(self, source: int, target: int, outbound: bool, nat: Nat, random: Random) -> None:
        self.source = source
        self.queue = ImpairedQueue(random)
        self.blocks: list[Block] = []
        self.counts: Counter[str] = Counter()
        self._target = target
        self._outbound = outbound
        self._translate = nat.outbound if outbound else nat.inbound

    def forward_batch(self) -> None:
        """Read what has come, and send it on or keep it for its time."""
        now = time.monotonic()
        for _ in range(_BATCH):
            try:
                packet = os.read(self.source, _MTU_READ)
            except BlockingIOError:
                return
            except OSError:  # the device is down
                return
            if self.blocks and self._is_blocked(packet):
                self.counts["blocked"] += 1
                continue
            translated = self._translate(packet, now)
            if translated is None:
                continue
            if self.queue.transparent and self.queue.next_due is None:
                self._send(translated)
            else:
                self.queue.put(translated, now)

    def send_due(self, now: float) -> None:
        for packet in self.queue.pop_due(now):
            self._send(packet)

    def _send(self, packet: bytes | bytearray) -> None:
        try:
            os.write(self._target, packet)
            self.counts["forwarded"] += 1
        except OSError:
            self.counts["unsent"] += 1

    def _is_blocked(self, packet: bytes) -> bool:
        return any(
            block.protocol in (0, protocol_of(packet))
            and block.remote in (b"", remote_of(packet, outbound=self._outbound))
            for block in self.blocks
        )


class RouterProcess:
    """The router of two TUN devices, as told over ``control``."""

    def __init__(self, control: socket.socket, inside: int, outside: int) -> None:
        self._control = control
        start = _decode(control.recv(65536))
        assert isinstance(start, Start)
        random = Random(start.seed)
        self._nat = Nat(start.kind, start.outside, start.firewall, start.timeout, random)
        self._directions = {
            OUT: _Direction(inside, outside, True, self._nat, random),
            IN: _Direction(outside, inside, False, self._nat, random),
        }
        self._reply()

    def run(self) -> None:
        """Forward until the control socket ends."""
        poll = select.epoll()
        control = self._control.fileno()
        directions = {direction.source: direction for direction in self._directions.values()}
        for descriptor in (control, *directions):
            poll.register(descriptor, select.EPOLLIN)
        while True:
            dues = [due for direction in directions.values() if (due := direction.queue.next_due) is not None]
            for descriptor, _ in poll.poll(max(0.0, min(dues) - time.monotonic()) if dues else None):
                if descriptor != control:
                    directions[descriptor].forward_batch()
                elif not self._obey():
                    return
            if dues:
                now = time.monotonic()
                for direction in directions.values():
                    direction.send_due(now)

    def _obey(self) -> bool:
        message = self._control.recv(65536)
        if not message:
            return False
        match _decode(message):
            case Change(kind, outside):
                self._nat.change(kind, outside)
            case Forget():
                self._nat.forget()
            case SetImpairment(direction, impairment):
                for each in self._chosen(direction):
                    each.queue.set(impairment)
            case SetBlocks(direction, blocks):
                for each in self._chosen(direction):
                    each.blocks = blocks
        self._reply()
        return True

    def _chosen(self, direction: str) -> list[_Direction]:
        return [each for name, each in self._directions.items() if direction in (BOTH, name)]

    def _reply(self) -> None:
        counts = Counter(self._nat.counts)
        for name, direction in self._directions.items():
            for reason, number in (direction.counts + direction.queue.counts).items():
                counts[f"{name}_{reason}"] += number
        self._control.send(msgspec.msgpack.encode(counts))


def main() -> None:
    """Run the router."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control, inside, outside = map(int, sys.argv[1:])
    for device in (inside, outside):
        os.set_blocking(device, False)
    gc.disable()  # nothing here makes cycles, and a collection delays packets
    # The laboratory may end before this process is ready, or while it replies.
    with socket.socket(fileno=control) as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        RouterProcess(connection, inside, outside).run()


if __name__ == "__main__":
    main()
