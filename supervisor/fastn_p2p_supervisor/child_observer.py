"""Observer of children: what their owner is told about them."""

from __future__ import annotations

from typing import Protocol, TypeVar

from fastn_p2p_actors.runtime import control_channel as wire

C = TypeVar("C", contravariant=True)


class ChildObserver(Protocol[C]):
    """Owner of children, notified of their events."""

    def sweep(self) -> None:
        """Kill processes that an ended process has left behind."""

    def on_ended(self, child: C, in_order: bool) -> None:
        """Handle the end of a child's process."""

    def changed(self) -> None:
        """Note that the report of some child has changed."""

    def on_request(self, child: C, message: wire.ChildRequest, descriptors: list[int]) -> None:
        """Reply to a request of the child, at once or later. The descriptors that it brings are closed afterwards."""

    def end_worker(self, child: C, number: int) -> None:
        """Kill the worker that the child has started with the request of this number."""

    def on_ready(self, child: C) -> None:
        """Handle the readiness of a child's process."""

    def on_asleep(self, child: C) -> None:
        """Handle the end of a child that has fallen asleep. It is not started again by itself."""

    def on_crash_loop(self, child: C) -> None:
        """Handle a crash loop: the child is not restarted any more."""

    def on_fatal_error(self, reason: str) -> None:
        """Handle a failure after which no child can be started."""
