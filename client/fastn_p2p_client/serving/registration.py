"""Registration of a binding that a program serves."""

from __future__ import annotations

from ..ipc import messages as m
from ..keys import PublicKey
from .binding import ServedBinding
from .handlers import DEFAULT_QUEUE, ProtocolHandlers


class BindingRegistration(ServedBinding):
    """Binding that a program serves, and its registration.

    Attributes:
        access: peers that may use it, unless its owner has chosen them.
        keeps_state: whether it keeps what peers send: see ``Protocol.keeps_state``.
        stateless: whether any daemon may serve its requests: see ``Protocol.is_stateless``.
        granted: the gateway's permission to serve it.
        limit: requests that may be in flight, running and waiting; 0 for no limit. As in ``RegisterBinding``.
    """

    __slots__ = ("access", "granted", "keeps_state", "limit", "stateless")

    def __init__(
        self,
        identity: str,
        protocol: str,
        instance: str,
        handlers: ProtocolHandlers,
        access: tuple[str, ...],
        granted: m.Grant,
    ) -> None:
        super().__init__(
            identity,
            PublicKey(granted.key),
            protocol,
            instance,
            handlers.requests,
            handlers.streams,
            handlers.concurrency,
        )
        self.access = access
        self.granted = granted
        self.keeps_state = False
        self.stateless = bool(handlers.stateless)
        queue = DEFAULT_QUEUE if handlers.queue is None else handlers.queue
        self.limit = 0 if handlers.concurrency is None else handlers.concurrency + queue

    def message(self) -> m.RegisterBinding:
        """Return the message that registers the binding."""
        allow = self.granted.allow or self.access
        return m.RegisterBinding(
            self.identity,
            self.protocol,
            self.instance,
            allow,
            self.granted.grant,
            self.limit,
            keeps_state=self.keeps_state,
            claims_calls=self.claims is not None,
            stateless=self.stateless,
        )

    def __str__(self) -> str:
        return f"{self.protocol} ({self.instance}) of {self.identity}"
