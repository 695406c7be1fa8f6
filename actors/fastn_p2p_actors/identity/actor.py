"""Process of one identity: its mailbox, its bindings, its connection to the network process."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import shlex
import threading
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fastn_p2p_client.errors import BadMessage, Forbidden, InternalError, P2PError
from fastn_p2p_client.ipc.messages import UNDECODABLE, Ack, Cancel, ErrorReply, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel
from fastn_p2p_client.ipc.unix_sockets import set_opener
from fastn_p2p_client.permissions import KINDS, missing
from fastn_p2p_client.protocol import IDLE, STOPPED
from fastn_p2p_client.serving.dispatcher import Dispatcher

from ..runtime.actor import ActorContext
from ..runtime.log_files import confine_logging
from ..runtime.mailbox import Mailbox, Sender
from ..runtime.mailbox_memory import MAX_CONFIGS_HELD
from ..runtime.process_setup import is_actor_process
from ..runtime.sandbox.replaced_files import ReplacedFiles
from ..runtime.sandbox.sandbox import Sandbox
from ..runtime.sandbox.system_files import python_files
from ..runtime.site_packages import refresh
from ..runtime.specs import IdentitySettings
from ..storage.identity_store import BindingFile, IdentityStore
from ..storage.permission_store import PermissionStore
from .crash_attribution import CrashAttribution
from .hosted_binding import HostedBinding
from .messages import (
    Activate,
    BindingStates,
    Deactivate,
    GetBindingStates,
    IdentityActorReply,
    IdentityRequest,
    Limit,
    RestartNeeded,
    SetIdleTime,
)
from .network_registration import NetworkRegistration
from .refused_attempts import RefusedAttempts
from .resource_limits import apply_limits, memory_limit
from .sandbox_preparation import prepare
from .sandboxed_process import DeniedAttemptHint, SandboxTooSmall, open_socket, use_temporary_directory

if TYPE_CHECKING:
    from .idle_watch import IdleWatch

FINISH_SECONDS: Final = 2.0
"""Seconds that requests in flight may take when their binding is removed."""
DRAIN_SECONDS: Final = 4.0
"""Seconds that requests in flight and hooks may take when the process ends. The supervisor allows one more."""
UNREGISTER_SECONDS: Final = 0.5
"""Seconds for telling the network process that the identity is offline."""

_MOST_SHOWN: Final = 3
"""Refused attempts that ``status`` names."""

_request: Final = msgspec.msgpack.Decoder(IdentityRequest)

log = logging.getLogger(__name__)


class IdentityActor:
    """Process of one identity. Create it inside the running event loop.

    Raises:
        P2PError: the identity does not exist, or its file is damaged.
    """

    def __init__(self, context: ActorContext) -> None:
        settings = context.load_settings(IdentitySettings)
        self._context = context
        self._store = IdentityStore(context.home)
        self._identity = self._store.identity(settings.identity)
        self._grant = settings.grant
        self._default_memory = settings.memory
        self._attribution = CrashAttribution(
            context.home.runtime_files(context.name) / context.name,
            context.spec.previous_exit,
            hung=context.spec.previous_hung,
            memory=memory_limit(self._identity.limits, settings.memory),
        )
        self._hosted: dict[tuple[str, str], HostedBinding] = {}
        self._changing = asyncio.Lock()
        self._granted: tuple[str, ...] | None = None
        """Permissions with which this process was confined; None if it is not."""
        self._granted_files: ReplacedFiles | None = None
        self._refused: list[str] = []
        """Attempts that the sandbox has refused."""
        self._loop = asyncio.get_running_loop()
        self._home = Path(os.path.realpath(context.home.path))
        self._code_files: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatcher = Dispatcher(self._answer, self._send_session_message, self._receive_descriptor)
        self._network = RequestChannel(
            context.home.mailbox("network"),
            "network",
            on_message=self._dispatcher.on_message,
            on_connect=lambda: self._registration.start_registering(),
            on_disconnect=self._dispatcher.cancel_all,  # the next network process does not know these ids
        )
        self._registration = NetworkRegistration(
            self._network, settings.identity, settings.grant, self._active, self._is_listed
        )
        self._idle: IdleWatch | None = None
        self._asleep: asyncio.Future[None] = self._loop.create_future()
        """Done once the identity is asleep."""
        self._mailbox = Mailbox(
            context.home.mailbox(context.name),
            self._on_message,
            limits=context.connection_limits(),
            max_held=MAX_CONFIGS_HELD,
            listener=context.listeners.get(context.name),
        )

    async def run(self) -> None:
        """Serve until told to stop, then drain."""
        self._attribution.watch_tasks(asyncio.get_running_loop())
        self._mailbox.open()
        self._confine()  # before any code of a protocol, and before any input is read
        self._network.open()
        granted = self._granted_files
        watching = self._spawn(self._context.restart_when_replaced(granted)) if granted else None
        stop = asyncio.ensure_future(self._context.stop_requested.wait())
        try:
            await self._start_all()
            self._registration.started.set()
            await asyncio.wait((self._registration.outcome, stop), return_when=asyncio.FIRST_COMPLETED)
            if self._registration.outcome.done():
                self._registration.outcome.result()
                self._context.ready()
            self._set_idle(self._identity.idle)
            await asyncio.wait((stop, self._asleep), return_when=asyncio.FIRST_COMPLETED)
            await self._drain(is_asleep=self._asleep.done())
        finally:
            stop.cancel()
            self._registration.stop_registering()
            self._registration.outcome.cancel()
            if watching is not None:
                watching.cancel()
            self._dispatcher.close()
            self._mailbox.close()
            self._network.close()
            self._attribution.close()

    def _confine(self) -> None:
        """Enter the sandbox. From then on the supervisor makes the connections of this process."""
        if not is_actor_process() or not self._context.spec.sandbox:
            self._context.enter_sandbox(Sandbox())
            if is_actor_process() and self._context.is_apart:
                set_opener(partial(open_socket, self._context, asyncio.get_running_loop()))
            return
        directory = self._context.home.identities / self._identity.name
        prepared = prepare(self._context.home, self._identity.name)
        if prepared.has_new_packages:
            refresh()
        use_temporary_directory(directory)
        confine_logging()
        self._granted = prepared.granted
        self._code_files = prepared.code_files
        self._granted_files = ReplacedFiles(prepared.watched)
        self._context.enter_sandbox(prepared.compiled())
        RefusedAttempts(prepared.sandbox(), prepared.rights, self._runs_protocol_code, self._on_refused).watch()
        for handler in logging.getLogger().handlers:
            handler.addFilter(DeniedAttemptHint())
        set_opener(partial(open_socket, self._context, asyncio.get_running_loop()))

    def _runs_protocol_code(self) -> bool:
        """Return whether the code that runs in this thread is a protocol's. The daemon's own threads open no files."""
        return self._attribution.running() is not None or threading.current_thread() is not threading.main_thread()

    def _on_refused(self, attempt: str) -> None:
        """Say in the log what would allow an attempt that the sandbox refuses. Works in every thread."""
        running = self._attribution.running() if threading.current_thread() is threading.main_thread() else None
        known = [running] if running else list(self._hosted)
        option = f" --protocol {known[0][0]} --instance {known[0][1]}" if len(known) == 1 else " --protocol ..."
        allow = f"fastn-p2p set-protocol {self._identity.name}{option} --grant {shlex.quote(attempt)}"
        name = f"{known[0][0]} ({known[0][1]})" if len(known) == 1 else "a protocol"
        if attempt.partition(" ")[0] in KINDS:
            log.warning("the sandbox refuses to %s: %s. If you trust the protocol: %s", name, attempt, allow)
        else:
            log.warning("the sandbox refuses to %s: %s", name, attempt)
        self._refused.append(attempt)
        shown = "; ".join(self._refused[:_MOST_SHOWN])
        more = len(self._refused) - _MOST_SHOWN
        self._loop.call_soon_threadsafe(
            self._context.report_refused, shown if more <= 0 else f"{shown}; and {more} more"
        )

    def _check_sandbox(self, message: Activate) -> None:
        """Raise RestartNeeded if the binding needs what this process's sandbox lacks."""
        if self._granted is None:
            return
        refresh()
        granted = PermissionStore(self._context.home).granted(self._identity.name, message.protocol, message.instance)
        if missing(granted, self._granted) or any(
            str(file) not in self._code_files and file.exists() for file, _ in python_files(self._home)
        ):
            raise SandboxTooSmall

    def _granted_to(self, hosted: HostedBinding) -> tuple[str, ...] | None:
        """Return the permissions of a binding; None if this process has no sandbox. Raises StorageDamaged."""
        if self._granted is None or not self._context.is_confined:
            return None
        return PermissionStore(self._context.home).granted(self._identity.name, *hosted.name)

    def _is_listed(self) -> bool:
        """Return what the owner wants now. The identity also registers after a restart of the network process."""
        try:
            return self._store.identity(self._identity.name).listed
        except P2PError as error:
            log.error("the record is not published: %s", error)
            return False

    # ── start and end ────────────────────────────────────────────────────────────────────────────────

    async def _start_all(self) -> None:
        found = self._store.bindings(self._identity.name)
        for damaged in found.damaged:
            log.error("%s", damaged)
        starting: list[tuple[HostedBinding, BindingFile]] = []
        for record in found.usable:
            if record.stopped or record.program:
                continue
            hosted = self._new_binding(record.protocol, record.instance, record.code)
            self._hosted[hosted.name] = hosted
            modified = self._store.modified_at(self._identity.name, record.protocol, record.instance)
            crashes = self._attribution.crash_loop(hosted.name, modified)
            if crashes:
                hosted.exclude_after_crashes(crashes)
            else:
                starting.append((hosted, record))
        if len(starting) < len(self._hosted):
            self._context.report_fault_excluded()
        await asyncio.gather(*(self._start(hosted, record) for hosted, record in starting))

    async def _start(self, hosted: HostedBinding, record: BindingFile) -> None:
        try:
            granted = self._granted_to(hosted)
            self._dispatcher.add(await hosted.start(bytes(record.config), record.allow, granted, record.claims))
        except P2PError as error:
            hosted.failed(error)

    def _set_idle(self, seconds: int) -> None:
        """Have the identity fall asleep after so many seconds without use; 0 for never."""
        if self._idle is not None:
            self._idle.set_idle(seconds)
        elif seconds:
            from .idle_watch import IdleWatch

            request, fall_asleep = self._registration.request_sleep, self._context.fall_asleep
            self._idle = IdleWatch(seconds, self._is_busy, request, fall_asleep, self._stay_awake)
            _ = self._spawn(self._watch_idle(self._idle))

    async def _watch_idle(self, watch: IdleWatch) -> None:
        await watch.run()
        log.info("%s falls asleep", self._identity.name)
        self._asleep.set_result(None)

    def _is_busy(self) -> bool:
        """Return whether the process is needed for what only it knows of."""
        return (
            self._changing.locked()
            or self._dispatcher.in_flight > 0
            or self._dispatcher.has_outcomes
            or any(hosted.stays_awake for hosted in self._active())
        )

    def _stay_awake(self, register: bool) -> None:
        """Go on after an attempt to fall asleep.

        Args:
            register: register again, because the network process may not send requests any more.
        """
        self._context.stay_awake()
        if register and self._network.connected:
            self._registration.start_registering()

    async def _drain(self, *, is_asleep: bool) -> None:
        """Let requests in flight and hooks end. An identity that is asleep stays registered."""
        loop = asyncio.get_running_loop()
        end = loop.time() + DRAIN_SECONDS
        self._registration.stop_registering()
        if not is_asleep:
            await self._registration.go_offline(UNREGISTER_SECONDS)
        await self._dispatcher.drain(end - loop.time() - 2 * UNREGISTER_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(UNREGISTER_SECONDS, end - loop.time() - UNREGISTER_SECONDS)):
                reason = IDLE if is_asleep else STOPPED
                await asyncio.gather(*(hosted.stop(reason) for hosted in self._hosted.values()))
        if not is_asleep:
            await self._registration.go_offline(UNREGISTER_SECONDS)  # after it, the last replies have been sent

    def _new_binding(self, protocol: str, instance: str, code: str) -> HostedBinding:
        workspace = self._store.workspace(self._identity.name, protocol, instance)
        identity = self._identity
        hosted = HostedBinding(
            identity.name, identity.key, protocol, instance, workspace, code, self._context.home, self._attribution
        )
        hosted.on_waiting = lambda: self._spawn(self._registration.report_waiting(hosted))
        return hosted

    def _active(self) -> list[HostedBinding]:
        return [hosted for hosted in self._hosted.values() if hosted.binding is not None]

    # ── network process ──────────────────────────────────────────────────────────────────────────────

    def _answer(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            self._network.answer(correlation, header, payload)
        except P2PError as error:
            log.warning("a reply was lost: %s", error)

    def _send_session_message(self, correlation: bytes, header: bytes, payload: bytes | memoryview) -> None:
        self._network.send(correlation, header, payload, credited=True)

    async def _receive_descriptor(self, token: bytes) -> int:
        return await self._network.receive_descriptor(token)

    # ── gateway ──────────────────────────────────────────────────────────────────────────────────────

    def _on_message(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            message = _request.decode(header)
        except UNDECODABLE as error:
            self._mailbox.send(sender, correlation, encode(ErrorReply.of(BadMessage(reason=str(error)))))
            return
        if isinstance(message, Cancel):
            return
        _ = self._spawn(self._handle(sender, correlation, message, payload))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _handle(
        self,
        sender: Sender,
        correlation: bytes,
        message: Activate | Deactivate | GetBindingStates | Limit | SetIdleTime,
        payload: bytes,
    ) -> None:
        reply: IdentityActorReply
        try:
            if isinstance(message, GetBindingStates):
                reply = BindingStates([hosted.describe() for hosted in self._hosted.values()])
            elif not hmac.compare_digest(message.grant, self._grant):
                raise Forbidden(role="a program", request=type(message).__name__)
            elif isinstance(message, SetIdleTime):
                self._set_idle(message.seconds)
                reply = Ack()
            else:
                if self._idle is not None:
                    self._idle.touch()
                async with self._changing:
                    if isinstance(message, Limit):
                        if not self._context.is_confined:  # else the supervisor sets them
                            apply_limits(self._context, message.limits, self._default_memory)
                        self._attribution.limit_memory(memory_limit(message.limits, self._default_memory))
                    elif isinstance(message, Activate):
                        await self._activate(message, payload)
                    else:
                        await self._deactivate(message)
                reply = Ack()
        except SandboxTooSmall:
            reply = RestartNeeded()
        except P2PError as error:
            reply = ErrorReply.of(error)
        except Exception as error:
            log.exception("%s failed", type(message).__name__)
            reply = ErrorReply.of(InternalError(reason=type(error).__name__))
        self._mailbox.send(sender, correlation, encode(reply))

    async def _activate(self, message: Activate, config: bytes) -> None:
        self._check_sandbox(message)
        existing = self._hosted.get((message.protocol, message.instance))
        if existing is not None and existing.binding is not None:
            if not existing.is_replaced():
                await existing.reload(config, message.allow, message.claims)
                await self._registration.register(existing)
                return
            await self._end(existing)
        hosted = self._new_binding(message.protocol, message.instance, message.code)
        self._hosted[hosted.name] = hosted
        try:
            granted = self._granted_to(hosted)
            self._dispatcher.add(await hosted.start(config, message.allow, granted, message.claims))
            await self._registration.register(hosted)
        except P2PError as error:
            await self._end(hosted)
            self._hosted[hosted.name] = hosted
            hosted.failed(error)
            raise
        hosted.state = "serving"
        if hosted.waiting or hosted.problem:
            hosted.on_waiting()

    async def _deactivate(self, message: Deactivate) -> None:
        hosted = self._hosted.get((message.protocol, message.instance))
        if hosted is not None:
            await self._end(hosted)

    async def _end(self, hosted: HostedBinding) -> None:
        del self._hosted[hosted.name]
        binding = hosted.binding
        if binding is not None:
            await self._registration.unregister(hosted)
            self._dispatcher.remove(binding)
            await self._dispatcher.wait_for_binding(binding, FINISH_SECONDS)
        await hosted.stop()
