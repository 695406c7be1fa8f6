"""Home with many identities that were asleep when its daemon ended. Each has Echo.

``python -m tests.benchmarks.sleeping_home HOME N`` makes it. Through the daemon, ten thousand would take minutes: every
step is synced to disk.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec

from fastn_p2p_actors.network.sleepers import SleepingBinding, SleepingIdentity
from fastn_p2p_actors.storage.identity_store import BindingFile, IdentityFile, IdentityStore
from fastn_p2p_actors.vault.key_store import KeyStore
from fastn_p2p_actors.vault.locked_memory import LockedMemory
from fastn_p2p_client.home import Home
from fastn_p2p_client.keys import PublicKey

__all__ = ["make", "name_of"]

_EVERYONE = ("everyone",)
_CODE = "fastn_p2p.protocols.echo:Echo"
"""Entry point of Echo, as ``add-protocol`` notes it. Without it, each look at a binding would search for the code."""


def name_of(number: int) -> str:
    return f"sleeper-{number:05}"


def make(path: Path, count: int) -> None:
    """Make the home. No daemon may use it."""
    home = Home(path)
    asleep = home.path / "run" / "asleep"
    for directory in (home.path, home.identities, home.vault, asleep.parent, asleep):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys, store = KeyStore(home.vault, LockedMemory(), time.time), IdentityStore(home)
    keys.open()
    content = msgspec.json.encode(SleepingIdentity((SleepingBinding("Echo", "default", _EVERYONE),)))
    for number in range(count):
        name = name_of(number)
        key = keys.create(name)
        id52 = PublicKey(bytes(key.pair.public)).id52
        store.create_identity(
            IdentityFile(name=name, id52=id52, created=key.header.created, online=True, idle=30 * 86_400)
        )
        binding = BindingFile(protocol="Echo", instance="default", allow=_EVERYONE, code=_CODE)
        store.prepare_binding(name, binding).commit()
        (asleep / f"{name}.json").write_bytes(content)


if __name__ == "__main__":
    os.fsync = lambda _descriptor: None  # type: ignore[assignment]
    make(Path(sys.argv[1]), int(sys.argv[2]))
