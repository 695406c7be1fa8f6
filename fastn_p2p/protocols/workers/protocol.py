"""Protocol class of bindings whose handlers run on other machines. A binding has the name of its workers' protocol."""

from __future__ import annotations

import asyncio
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import msgspec

from fastn_p2p_client.claims.call_claims import Outcome
from fastn_p2p_client.claims.claims_url import BucketUrl, ClaimsUrl, parse_claims
from fastn_p2p_client.errors import ConnectionLost
from fastn_p2p_client.nats_client.nats_server import NatsServer
from fastn_p2p_client.protocol import BindingContext, CallContext, Permissions, Protocol, request, stream
from fastn_p2p_client.serving.forwarded_call import ForwardedCall
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.worker_token import parse_address

if TYPE_CHECKING:
    from fastn_p2p_client.claims.call_claims import CallClaims

    from .bridge import WorkerBridge


def claims_of_workers(claims: str, server: NatsServer) -> ClaimsUrl:
    """Return the store of claims of workers: a bucket of their server, or what a URL names. Raises ValueError."""
    return parse_claims(claims) if ":" in claims else BucketUrl.of(server, claims)


class Workers(Protocol):
    """Pass requests and sessions on to workers on other machines, through a NATS server.

    Access lists, limits, deadlines and errors are those of any binding. By default peers in the address book may use
    it. The bytes of sessions do not pass the NATS server: workers connect to the daemon for them.

    Raises:
        ConnectionLost: a worker has ended with the call.
        HandlerFailed: no worker has taken the session in time, or the daemon does not listen for workers.
        OutcomeUnknown: a worker or another daemon may have executed a call that was claimed.
        ProtocolNotFound: there is no worker.
        StorageUnavailable: the call could not be claimed.
        Overloaded: too many calls wait for room at workers.
    """

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        url: str
        """``nats://HOST:PORT`` or ``tls://HOST:PORT``; several servers of a cluster with commas between them."""
        credentials: str = ""
        """Path of a file that only its owner can read: a ``.creds`` file, an nkey seed, or TOML with ``user`` and
        ``password``, or ``token``."""
        ca: str = ""
        """Path of the certificates with which that of the server is checked; empty for those of the system."""
        queue: Annotated[int, msgspec.Meta(ge=1, le=16384)] = 4096
        """Calls that wait for room at workers."""
        address: str = ""
        """``HOST:PORT`` at which workers reach this daemon for sessions, if it is not that of ``worker.listen``."""

        claims: str = ""
        """Where retried calls are claimed: the name of a key-value bucket (JetStream) of this server, or the URL of a
        store; empty for none."""

        def server(self) -> NatsServer:
            return NatsServer(self.url, self.credentials, self.ca)

        def claim_store(self) -> ClaimsUrl | None:
            """Return the store of claims, if there is one. Raises ValueError."""
            if not self.claims:
                return None
            return claims_of_workers(self.claims, self.server())

    config: Config

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._bridge: WorkerBridge | None = None
        self._claims: CallClaims | None = None

    @classmethod
    def permissions(cls, config: Config) -> Permissions:
        try:
            addresses = config.server().addresses()
            store = config.claim_store()
        except ValueError:  # on_check reports it
            return Permissions()
        files = [each for each in (config.credentials, config.ca) if each]
        if store is not None:
            needed = store.permissions()
            addresses, files = [*addresses, *needed.connect], [*files, *map(str, needed.read)]
        return Permissions(connect=addresses, read=files)

    @classmethod
    def is_stateless(cls, config: Config) -> bool:
        return True  # any worker gets any request

    @classmethod
    def claims_calls(cls, config: Config) -> bool:
        return bool(config.claims)

    async def on_check(self) -> None:
        """Check the URL, the files, and that nats-py is installed. The server need not run."""
        if find_spec("nats") is None:
            raise ValueError("nats-py is not installed where the daemon runs: pip install 'fastn-p2p[nats]'")
        await asyncio.to_thread(self.config.server().check)
        store = self.config.claim_store()
        if store is not None:
            await asyncio.to_thread(store.check, "fastn-p2p")
        if self.config.address:
            parse_address(self.config.address)

    async def on_activate(self) -> None:
        from .bridge import WorkerBridge

        server = self.config.server()
        self._bridge = WorkerBridge(self.context, server, self.config.queue, self.config.address)
        store = self.config.claim_store()
        if store is not None:
            from fastn_p2p_client.claims.call_claims import CallClaims

            context = self.context
            opened = store.open(f"fastn-p2p {context.identity} claims")
            self._claims = CallClaims(context.key, context.protocol, context.instance, opened)

    async def on_reload(self) -> None:
        await self.on_deactivate()
        await self.on_activate()

    async def on_deactivate(self) -> None:
        bridge, self._bridge = self._bridge, None
        claims, self._claims = self._claims, None
        if bridge is not None:
            await bridge.close()
        if claims is not None:
            await claims.close()

    @stream
    async def forward_session(self, session: Session) -> None:
        """Have a worker take a session."""
        if self._bridge is None:
            raise ConnectionLost(what="the binding")
        await self._bridge.sessions.pass_on(session)

    @request("*")
    def forward(self, call: ForwardedCall) -> asyncio.Future[Outcome]:
        """Pass one request on, whatever its command."""
        bridge, claims, message = self._bridge, self._claims, call.message
        if bridge is None:
            raise ConnectionLost(what="the binding")
        if claims is None or not message.call_id:
            return bridge.call(call)
        context = CallContext(message.command, message.call_id, call.deadline, call.request_id)
        execute = partial(bridge.call, call, may_repeat=False)
        return asyncio.ensure_future(claims.execute_once(message.peer, context, execute))
