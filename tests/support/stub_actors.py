"""A network, a vault, a supervisor and a program for the gateway and the identity actor to talk to.

Sockets and the control channel are real; everything runs in the test's own event loop.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from fastn_p2p_actors import gateway, identity
from fastn_p2p_actors.identity import one_shot_worker
from fastn_p2p_actors.network import admin_messages as net
from fastn_p2p_actors.runtime import control_channel
from fastn_p2p_actors.runtime.actor import ActorContext
from fastn_p2p_actors.runtime.curve.keys import VaultKeys, generate_vault_keys
from fastn_p2p_actors.runtime.curve.mailbox import CurveMailbox, CurveSender
from fastn_p2p_actors.runtime.grants import make_grant
from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_actors.runtime.specs import ActorSpec, GatewaySettings, IdentitySettings
from fastn_p2p_actors.vault import messages as vault
from fastn_p2p_client.errors import IdentityExists, IdentityFailed, IdentityNotFound, IdentityOffline, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.messages import Ack, BindingStatus, DeliverCall, ErrorReply, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel, Response
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import PROTOCOL_VERSION
from tests.support.signer import Signer

REVOKER = Signer("revoker")
"""Signs the revocations of the stub of the vault."""
GRANT_KEY: Final = b"k" * 32
KEYS: Final = [
    PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"),
    PublicKey("nekf7jqcn541r8jhsp9756pssne1aqihas7a1ebgql4ud521h0ng"),
    PublicKey("ka0ddtpll6tgotqpfmtdee75je66r6bgn51q3s3bb9j4c8hmcrtg"),
]

T = TypeVar("T")


@contextmanager
def temporary_home() -> Iterator[Home]:
    """A home whose sockets fit into it, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="fastn-test-", dir="/tmp"))
    home = Home(folder)
    for directory in (home.sockets / "run", home.identities, home.logs, home.vault):
        directory.mkdir(mode=0o700)
    try:
        yield home
    finally:
        shutil.rmtree(folder)


class StubNetwork:
    """Takes registrations, hands requests over, and answers the gateway.

    Attributes:
        received: every registration, in order.
        refuse: kind of message → the error with which it is answered.
        ignore: kinds of messages that are not answered.
    """

    _decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(net.NetworkRequest)

    def __init__(self, home: Home) -> None:
        self.received: list[msgspec.Struct] = []
        self.refuse: dict[type[msgspec.Struct], P2PError] = {}
        self.ignore: set[type[msgspec.Struct]] = set()
        self.online: dict[str, Sender] = {}
        self.serving: dict[tuple[str, str, str], m.RegisterBinding] = {}
        self.answers: dict[bytes, asyncio.Future[Response]] = {}
        self.changed = asyncio.Event()
        self._managers: set[Sender] = set()
        self._next = 0
        self._mailbox = Mailbox(home.mailbox("network"), self._on_message, on_gone=self._on_gone)
        self._mailbox.open()

    def close(self) -> None:
        self._mailbox.close()

    async def until(self, condition: Any) -> None:
        """Waits for what is heard to make ``condition()`` true."""
        async with asyncio.timeout(50):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def wait_for_message(self, kind: type[msgspec.Struct], count: int = 1) -> None:
        await self.until(lambda: sum(isinstance(message, kind) for message in self.received) >= count)

    def deliver(
        self, name: str, protocol: str, instance: str, request: object, *, ms: int = 5000
    ) -> tuple[bytes, asyncio.Future[Response]]:
        """Hands one request over; the future is the answer."""
        self._next += 1
        correlation = b"network-%d" % self._next
        self.answers[correlation] = future = asyncio.get_running_loop().create_future()
        header = encode(DeliverCall(bytes(KEYS[2]), "carol", name, protocol, instance, ms))
        assert self._mailbox.send(self.online[name], correlation, header, msgspec.msgpack.encode(request))
        return correlation, future

    async def call(self, name: str, protocol: str, instance: str, request: object, *, ms: int = 5000) -> Any:
        """Return the handler's reply, or the header of another answer."""
        async with asyncio.timeout(50):
            answer = await self.deliver(name, protocol, instance, request, ms=ms)[1]
        header = msgspec.msgpack.decode(answer.header, type=m.DataMessage)
        return msgspec.msgpack.decode(answer.payload) if isinstance(header, m.Reply) else header

    def cancel(self, name: str, correlation: bytes) -> None:
        self._mailbox.send(self.online[name], correlation, encode(m.Cancel()))

    def _on_message(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        waiting = self.answers.pop(correlation, None)
        if waiting is not None:
            waiting.set_result(Response(header, payload))
            return
        message = self._decoder.decode(header)
        self.received.append(message)
        self.changed.set()
        if type(message) in self.ignore:
            return
        try:
            refusal = self.refuse.get(type(message))
            if refusal is not None:
                raise refusal
            reply = self._answer(sender, message)
        except P2PError as error:
            reply = ErrorReply.of(error)
        self._mailbox.send(sender, correlation, encode(reply))

    def _answer(self, sender: Sender, message: Any) -> msgspec.Struct:
        match message:
            case m.RegisterIdentity():
                assert message.grant == make_grant(GRANT_KEY, message.identity)
                self.online[message.identity] = sender
            case m.RegisterBinding():
                assert message.grant == make_grant(GRANT_KEY, message.identity)
                self.serving[message.identity, message.protocol, message.instance] = message
            case m.UnregisterBinding():
                self.serving.pop((message.identity, message.protocol, message.instance), None)
            case m.UnregisterIdentity():
                if message.identity not in self.online:
                    raise IdentityOffline(identity=message.identity)
                del self.online[message.identity]
            case net.AuthenticateGateway():
                assert message.grant == make_grant(GRANT_KEY, "gateway:")
                self._managers.add(sender)
            case _:
                assert sender in self._managers, "said before Manage"
                return self._manage(message)
        return Ack()

    def _manage(self, message: Any) -> msgspec.Struct:
        peer = m.PeerInfo(name="carol", id52=KEYS[2].id52, endpoints=1, added="2026-01-31T12:00:00Z")
        match message:
            case net.CreateTicket():
                return m.TicketText(f"ticket of {message.identity}")
            case net.SavePeer():
                return m.PeerReply(msgspec.structs.replace(peer, name=message.name))
            case net.GetPeers():
                return m.PeerList([peer])
            case net.GetNetworkReport():
                return net.NetworkReportReply(self._report(peer))
        return Ack()

    def _report(self, peer: m.PeerInfo) -> net.NetworkReport:
        identities = [
            m.IdentityStatus(
                name=name,
                id52=KEYS[0].id52,
                online=True,
                wanted=True,
                delegation_expires_ms=1000,
                bindings=[
                    BindingStatus(
                        protocol=protocol, instance=instance, access=list(serve.allow), state="serving", calls=7
                    )
                    for (owner, protocol, instance), serve in self.serving.items()
                    if owner == name
                ],
            )
            for name in self.online
        ]
        return net.NetworkReport(
            endpoint="ab" * 32,
            addresses=["127.0.0.1:1"],
            clients=2,
            identities=identities,
            peers=[peer],
            connections=[],
            warnings=["of the network"],
        )

    def _on_gone(self, sender: Sender) -> None:
        for name in [name for name, process in self.online.items() if process is sender]:
            del self.online[name]
            for key in [key for key in self.serving if key[0] == name]:
                del self.serving[key]
        self.changed.set()


class StubVault:
    """Keys without secrets.

    Attributes:
        keys: all there is, by name.
        revoked: identities that are revoked, by name. The revocation is that of ``REVOKER``.
        refuse: kind of message → the error with which it is answered.
        asked: set by each request.
        go_on: while it is not set, nothing is answered.
        events: what was reported for the audit log.
        locked: whether it says that it is locked.
    """

    _decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(vault.VaultRequest)

    def __init__(self, home: Home, roles: VaultKeys) -> None:
        self.keys: dict[str, vault.IdentityKey] = {}
        self.revoked: dict[str, vault.RevokedKey] = {}
        self.refuse: dict[type[msgspec.Struct], P2PError] = {}
        self.events: list[vault.RecordEvent] = []
        self.locked = False
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mailbox = CurveMailbox(
            home.mailbox("vault"), self._on_message, server_secret=roles.vault.server_secret, roles=roles.vault.roles
        )
        self._mailbox.open()

    def close(self) -> None:
        self._mailbox.close()

    def add(self, name: str) -> vault.IdentityKey:
        key = vault.IdentityKey(name, bytes(KEYS[len(self.keys) % len(KEYS)]), "2026-01-31T12:00:00Z")
        return self.keys.setdefault(name, key)

    def revoke(self, name: str, successor: bytes = b"") -> vault.RevokedKey:
        if name not in self.keys:
            raise IdentityNotFound(identity=name)
        return self.revoked.setdefault(name, vault.RevokedKey(name, REVOKER.revocation(successor), b"packet"))

    def _on_message(self, caller: CurveSender, correlation: bytes, header: bytes, _: bytes) -> None:
        assert caller.role == "gateway"
        message = self._decoder.decode(header)
        if isinstance(message, vault.RecordEvent):
            self.events.append(message)
            self._mailbox.send(caller, correlation, encode(Ack()))
            return
        if isinstance(message, vault.GetLockState):
            self._mailbox.send(caller, correlation, encode(vault.LockState(self.locked, self.locked)))
            return
        if not isinstance(message, vault.ListRevokedKeys):  # the gateway asks at its start
            self.asked.set()
        task = asyncio.ensure_future(self._handle(caller, correlation, header))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, caller: CurveSender, correlation: bytes, header: bytes) -> None:
        await self.go_on.wait()
        try:
            reply = self._answer(self._decoder.decode(header))
        except P2PError as error:
            reply = ErrorReply.of(error)
        self._mailbox.send(caller, correlation, encode(reply))

    def _answer(self, message: Any) -> msgspec.Struct:
        refusal = self.refuse.get(type(message))
        if refusal is not None:
            raise refusal
        match message:
            case vault.CreateKey():
                if message.name in self.keys:
                    raise IdentityExists(identity=message.name)
                return self.add(message.name)
            case vault.DeleteKey():
                if self.keys.pop(message.name, None) is None:
                    raise IdentityNotFound(identity=message.name)
                self.revoked.pop(message.name, None)
                return Ack()
            case vault.RevokeKey():
                return self.revoke(message.name, message.successor)
            case vault.ListRevokedKeys():
                return vault.RevokedKeys(tuple(self.revoked.values()), (), False, "")
        keys = [self.keys[name] for name in sorted(self.keys) if name > message.after]
        return vault.IdentityKeys(tuple(keys[:1]), (), len(keys) > 1, keys[0].name if keys else "")


async def run_worker(seconds: float, connection: int, output: int) -> control_channel.WorkerEnded:
    """Run a one-shot worker as a program, with copies of the descriptors, which are closed."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", one_shot_worker.MODULE, stdin=connection, stdout=connection, stderr=output
    )
    os.close(connection)
    os.close(output)
    try:
        async with asyncio.timeout(seconds):
            return control_channel.WorkerEnded(await started.wait())
    except TimeoutError:
        started.kill()
        return control_channel.WorkerEnded(await started.wait(), timed_out=True)


class StubSupervisor:
    """The other end of the gateway's control channel. Identities run as tasks of this process.

    Attributes:
        asked: every request, in order.
        broken: identities whose processes do not stay up.
        silent: it does not answer.
    """

    def __init__(self, home: Home) -> None:
        self.asked: list[control_channel.Request] = []
        self.broken: set[str] = set()
        self.silent = False
        self.running: dict[str, tuple[ActorContext, asyncio.Task[None]]] = {}
        self._home = home
        self._ours, self.theirs = control_channel.open_pair()
        self._tasks: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        for name in list(self.running):
            await self.stop(name)
        self._ours.close()
        self.theirs.close()

    async def start(self, name: str) -> ActorContext:
        settings = IdentitySettings(identity=name, grant=make_grant(GRANT_KEY, name))
        actor = ActorContext(spec(self._home, f"identity-{name}", settings))
        serving = asyncio.ensure_future(identity.serve(actor))
        self.running[name] = (actor, serving)
        ready = asyncio.ensure_future(actor.is_ready.wait())
        await asyncio.wait((ready, serving), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if serving.done():
            serving.result()
        return actor

    async def stop(self, name: str) -> None:
        found = self.running.pop(name, None)
        if found is not None:
            found[0].stop_requested.set()
            await found[1]

    def _read(self) -> None:
        while True:
            try:
                message, descriptors = control_channel.receive_with_descriptors(self._ours)
            except (BlockingIOError, EOFError):
                return
            if isinstance(message, control_channel.ChildRequest):
                self.asked.append(message.request)
                task = asyncio.ensure_future(self._answer(message, descriptors))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: control_channel.ChildRequest, descriptors: list[int]) -> None:
        if self.silent:
            return
        result: control_channel.Result = Ack()
        match request.request:
            case control_channel.StartIdentity(name):
                if name in self.broken:
                    result = ErrorReply.of(IdentityFailed(identity=name, reason="it keeps crashing"))
                elif name not in self.running:
                    await self.start(name)
            case control_channel.StopIdentity(name):
                await self.stop(name)
            case control_channel.EnsureOnline(names):
                for name in names:
                    if name not in self.running:
                        await self.start(name)
            case control_channel.RunWorker(seconds):
                result = await run_worker(seconds, *descriptors)
            case control_channel.GetProcesses():
                running = [
                    control_channel.ProcessInfo(f"identity-{name}", 0, "ready", 0, 0, "") for name in self.running
                ]
                broken = [
                    control_channel.ProcessInfo(f"identity-{name}", 0, "failed", 0, 5, "exit 1") for name in self.broken
                ]
                result = control_channel.ProcessList(
                    [control_channel.ProcessInfo("gateway", 1, "ready", 0, 2, ""), *running, *broken]
                )
        control_channel.send(self._ours, control_channel.ChildResponse(request.id, result))


class Program:
    """A program at ``control.sock``."""

    _decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(m.ControlReply)

    def __init__(self, home: Home) -> None:
        self.link = RequestChannel(home.control_socket, "gateway")
        self.link.open()

    async def hello(self, version: int = PROTOCOL_VERSION) -> m.Welcome:
        return await self.request(m.Hello(version, "test"), m.Welcome)

    async def request(self, message: msgspec.Struct, expected: type[T], payload: bytes = b"") -> T:
        """Raises P2PError: what the gateway said instead."""
        answer = await self.link.request(message, payload, timeout=60)
        reply = self._decoder.decode(answer.header)
        if isinstance(reply, ErrorReply):
            raise reply.error()
        assert isinstance(reply, expected)
        return reply


class RunningGateway:
    """A gateway and the actors that it needs."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.roles = generate_vault_keys()
        self.network = StubNetwork(home)
        self.vault = StubVault(home, self.roles)
        self.supervisor = StubSupervisor(home)
        self.program: Program
        self._actor: ActorContext
        self._serving: asyncio.Task[None] | None = None

    async def start_gateway(self) -> None:
        settings = GatewaySettings(
            vault=self.roles.gateway, grant_key=GRANT_KEY, network_mode="local", started_ms=1_000
        )
        self._actor = ActorContext(spec(self.home, "gateway", settings), self.supervisor.theirs)
        self._serving = asyncio.ensure_future(gateway.serve(self._actor))
        self.program = Program(self.home)
        await self.program.hello()

    async def stop_gateway(self) -> None:
        self.program.link.close()
        if self._serving is not None:
            self._actor.stop_requested.set()
            await self._serving
        asyncio.get_running_loop().remove_reader(self.supervisor.theirs)

    async def request(self, message: msgspec.Struct, expected: type[T], payload: bytes = b"") -> T:
        return await self.program.request(message, expected, payload)


@asynccontextmanager
async def running_gateway(
    home: Home, *, keys: Mapping[str, vault.IdentityKey] = {}, revoked: Sequence[str] = ()
) -> AsyncIterator[RunningGateway]:
    """A gateway with its colleagues, all of them closed at the end.

    Args:
        keys: keys that the vault has already.
        revoked: names of those that are revoked.
    """
    made = RunningGateway(home)
    made.vault.keys.update(keys)
    for name in revoked:
        made.vault.revoke(name)
    await made.start_gateway()
    try:
        yield made
    finally:
        await made.stop_gateway()
        await made.supervisor.close()
        made.network.close()
        made.vault.close()


NO_HEARTBEAT: Final = 3600.0
"""Seconds. A heartbeat after the end of a test would find the control channel closed, and end this process."""


def spec(home: Home, name: str, settings: msgspec.Struct) -> ActorSpec:
    builtins = msgspec.to_builtins(settings, builtin_types=(bytes,))
    return ActorSpec(name=name, module="", home=str(home.path), heartbeat=NO_HEARTBEAT, settings=builtins)
