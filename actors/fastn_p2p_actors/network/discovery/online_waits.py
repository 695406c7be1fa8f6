"""Local programs that wait until a peer is online. Each wait has exactly one outcome."""

from __future__ import annotations

import asyncio
from typing import Final

from fastn_p2p_client.errors import BadMessage, DeadlineExceeded, Overloaded, P2PError
from fastn_p2p_client.ipc.deadlines import DeadlineTimer
from fastn_p2p_client.ipc.messages import Ack, ErrorReply, WaitForPeer, encode
from fastn_p2p_client.limits import MAX_CALL_TIMEOUT, MAX_WAITS_PER_CLIENT

from ...runtime.mailbox import Mailbox, Sender
from .online_probe import OnlineProbe
from .targets import TargetFinder

_DONE: Final = encode(Ack())


class _Wait:
    """Wait of one program for one peer."""

    __slots__ = ("correlation", "seconds", "sender", "target")

    def __init__(self, sender: Sender, correlation: bytes, seconds: float) -> None:
        self.sender = sender
        self.correlation = correlation
        self.seconds = seconds
        self.target = b""
        """Key of the peer, once the probe watches it; b"" before."""


class OnlineWaits:
    """Waits of local programs for peers. The cost is proportional to their number.

    Args:
        mailbox: of the network process.
        targets: finds the key of a peer.
        probe: watches endpoints at which awaited peers may come online.
    """

    def __init__(self, mailbox: Mailbox, targets: TargetFinder, probe: OnlineProbe) -> None:
        self._loop = asyncio.get_running_loop()
        self._mailbox = mailbox
        self._targets = targets
        self._probe = probe
        self._deadlines: DeadlineTimer[_Wait] = DeadlineTimer(self._loop, self._expire)
        self._programs: dict[Sender, dict[bytes, _Wait]] = {}
        self._waiting_for: dict[bytes, set[_Wait]] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, sender: Sender) -> bool:
        """Return whether a program waits for a peer."""
        return sender in self._programs

    def close(self) -> None:
        """Forget all waits without an answer: programs see the end of their connection."""
        self._programs.clear()
        self._waiting_for.clear()
        self._deadlines.close()
        self._probe.close()

    # ── from programs ────────────────────────────────────────────────────────────────────────────

    def on_wait(self, sender: Sender, correlation: bytes, message: WaitForPeer) -> None:
        """Begin a program's wait for a peer."""
        waits = self._programs.get(sender, {})
        try:
            if correlation in waits:
                raise BadMessage(reason="a wait with this id is in flight already")
            if len(waits) >= MAX_WAITS_PER_CLIENT:
                raise Overloaded(what="peers that this program waits for", limit=MAX_WAITS_PER_CLIENT)
        except P2PError as error:
            self._mailbox.send(sender, correlation, encode(ErrorReply.of(error)))
            return
        wait = _Wait(sender, correlation, min(message.deadline_ms / 1000, MAX_CALL_TIMEOUT))
        self._programs.setdefault(sender, waits)[correlation] = wait
        self._deadlines.add(wait, self._loop.time() + wait.seconds)
        self._begin(wait, message)

    def on_cancel(self, sender: Sender, correlation: bytes) -> None:
        """Remove the wait that a program has cancelled, if it is not over."""
        wait = self._programs.get(sender, {}).get(correlation)
        if wait is not None:
            self._remove(wait)

    def on_sender_gone(self, sender: Sender) -> None:
        """Remove all waits of a program that has ended."""
        for wait in list(self._programs.get(sender, {}).values()):
            self._remove(wait)

    def _begin(self, wait: _Wait, message: WaitForPeer) -> None:
        def again() -> None:
            if self._is_active(wait):
                self._begin(wait, message)

        try:
            found = self._targets.find_peer(message.identity, message.peer, again)
        except P2PError as error:
            self._finish(wait, encode(ErrorReply.of(error)))
            return
        if found is None:
            return
        target, is_local = found
        if is_local:
            self._finish(wait, _DONE)
            return
        wait.target = target
        self._waiting_for.setdefault(target, set()).add(wait)
        self._probe.watch(target, message.peer)

    # ── outcomes ─────────────────────────────────────────────────────────────────────────────────

    def on_online(self, target: bytes) -> bool:
        """End the waits for an identity that has just been proved to be online. Return whether there were any."""
        waits = self._waiting_for.get(target)
        if waits is None:
            return False
        for wait in list(waits):
            self._finish(wait, _DONE)
        return True

    def fail(self, target: bytes, error: P2PError) -> None:
        """End the waits for an identity that will never be online again."""
        for wait in list(self._waiting_for.get(target, ())):
            self._finish(wait, encode(ErrorReply.of(error)))

    def _expire(self, wait: _Wait) -> None:
        self._finish(wait, encode(ErrorReply.of(DeadlineExceeded(seconds=round(wait.seconds, 3)))))

    def _finish(self, wait: _Wait, header: bytes) -> None:
        self._remove(wait)
        self._mailbox.send(wait.sender, wait.correlation, header)

    def _is_active(self, wait: _Wait) -> bool:
        return self._programs.get(wait.sender, {}).get(wait.correlation) is wait

    def _remove(self, wait: _Wait) -> None:
        self._deadlines.discard(wait)
        waits = self._programs.get(wait.sender, {})
        if waits.pop(wait.correlation, None) is not None and not waits:
            del self._programs[wait.sender]
        same = self._waiting_for.get(wait.target)
        if same is not None:
            same.discard(wait)
            if not same:
                del self._waiting_for[wait.target]
                self._probe.unwatch(wait.target)
