"""Rehearsal: the life of an identity's process from its start over one call to its end, in a temporary home.

The fork server runs it before its first fork. Decoders, signatures and caches that are made at their first use are then
made once, and not in each child. The network process is a mailbox here. The sandbox itself, limits and log files of a
real process are left out, and what a fork of it does for its sandbox.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

import msgspec

from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import Ack, DeliverCall, RegisterIdentity, encode
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.permissions import missing

from ..runtime.actor import ActorContext
from ..runtime.log_files import make_handler
from ..runtime.mailbox import Mailbox, Sender
from ..runtime.sandbox import seccomp
from ..runtime.sandbox.replaced_files import ReplacedFiles
from ..runtime.sandbox.system_files import settings_with_own_rules
from ..runtime.specs import ActorSpec, IdentitySettings
from ..storage.identity_store import BindingFile, IdentityFile
from ..storage.permission_store import PermissionStore
from . import serve
from .declared_permissions import declared_permissions

_SECONDS: Final = 2.0
"""Seconds after which the rehearsal is given up. It takes some hundredths."""
_NAME: Final = "rehearsal"
_KEY: Final = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
_CODE: Final = "fastn_p2p.protocols.echo:Echo"
"""Protocol that the daemon brings along, and that every process may load."""


async def rehearse(directory: Path) -> None:
    """Run the life of an identity's process. Leaves nothing behind but what this process has loaded and cached.

    Args:
        directory: an empty directory for the home.

    Raises:
        TimeoutError: it took too long.
    """
    home = Home(directory)
    spec = _write_identity(home)
    make_handler(home, _NAME).format(logging.makeLogRecord({"name": _NAME, "msg": "%s", "args": (_NAME,)}))
    ReplacedFiles(settings_with_own_rules()).find_replaced()
    if seccomp.is_supported():
        seccomp.io_uring_filter()
    missing(declared_permissions("Echo", _CODE, b""), PermissionStore(home).granted(_NAME, "Echo", "default"))
    context = ActorContext(msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=ActorSpec), None)
    network = _Network(home)
    try:
        async with asyncio.timeout(_SECONDS):
            living = asyncio.create_task(serve(context))
            await asyncio.wait([living, network.answered], return_when=asyncio.FIRST_COMPLETED)
            context.stop_requested.set()
            await living
    finally:
        network.close()


def _write_identity(home: Home) -> ActorSpec:
    binding = home.identities / _NAME / "protocols" / "Echo" / "default"
    for made in (home.path / "run", home.logs, binding):
        made.mkdir(mode=0o700, parents=True)
    home.socket_directory_file.write_bytes(bytes(home.path))  # also if a socket with a longer name would not fit
    identity = IdentityFile(name=_NAME, id52=_KEY.id52, created="", online=True)
    (home.identities / _NAME / "identity.json").write_bytes(msgspec.json.encode(identity))
    (binding / "config.json").write_bytes(
        msgspec.json.encode(BindingFile(protocol="Echo", instance="default", allow=("everyone",), code=_CODE))
    )
    settings: dict[str, Any] = msgspec.to_builtins(
        IdentitySettings(identity=_NAME, grant=bytes(32)), builtin_types=(bytes,)
    )
    return ActorSpec(
        name=f"identity-{_NAME}", module=serve.__module__, home=str(home.path), heartbeat=1.0, settings=settings
    )


class _Network:
    """Network process as far as this needs one: it accepts every registration, and delivers a call."""

    def __init__(self, home: Home) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._mailbox = Mailbox(home.mailbox("network"), self._on_message)
        self._mailbox.open()

    def close(self) -> None:
        self._mailbox.close()

    def _on_message(self, sender: Sender, correlation: bytes, header: bytes, _: bytes) -> None:
        if correlation == _NAME.encode():
            if not self.answered.done():
                self.answered.set_result(None)
            return
        self._mailbox.send(sender, correlation, encode(Ack()))
        if msgspec.msgpack.decode(header)[0] == RegisterIdentity.__struct_config__.tag:
            call = DeliverCall(bytes(_KEY), "", _NAME, "Echo", "default", 1000)
            self._mailbox.send(sender, _NAME.encode(), encode(call), msgspec.msgpack.encode({"message": "hi"}))
