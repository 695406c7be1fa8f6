"""Run of a pairing in the process of its command, and the output of its result."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastn_p2p_actors.network import RUST_DIAGNOSTICS
from fastn_p2p_actors.pairing.pairing_errors import PairingError
from fastn_p2p_actors.pairing.rendezvous import NetworkUse
from fastn_p2p_actors.pairing.result import PairedPeer
from fastn_p2p_actors.runtime.process_setup import make_undumpable
from fastn_p2p_client.client import Client
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import GetStatus

from ..console.output import put_json, write_message, write_result


def run_pairing(
    home: Path | None,
    pairing: Callable[[Home, NetworkUse], Coroutine[Any, Any, PairedPeer]],
    command: str = "pair",
) -> PairedPeer:
    """Run a pairing with the network settings of the running daemon. SIGTERM and Ctrl-C take everything back.

    Args:
        command: the command that shows new words, for errors.

    Raises:
        P2PError: it failed, or the daemon does not run.
        KeyboardInterrupt: it was interrupted.
    """
    make_undumpable()  # it has the words, and what is derived from them
    for variable in RUST_DIAGNOSTICS:
        os.environ.pop(variable, None)
    found = Home.find(home)

    async def run() -> PairedPeer:
        task = asyncio.current_task()
        if task is not None:
            for number in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        async with Client(found.path, program="fastn-p2p pair") as client:
            status = (await client.control(GetStatus(limit=1))).status
        use = NetworkUse(
            mode=status.network_mode,
            relays=tuple(status.relays),
            directories=tuple(status.directories),
            lan=status.lan,
        )
        try:
            return await pairing(found, use)
        except PairingError as error:
            error.show_with(command)
            raise

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def finish(paired: PairedPeer, *, json: bool) -> None:
    """Print the peer that was paired."""
    if json:
        put_json({field: getattr(paired, field) for field in paired.__dataclass_fields__})
        return
    if paired.renamed_from:
        write_message(
            f"Renamed {paired.renamed_from} to {paired.name}, with a new ticket. Access lists still have the old name. "
            "Change them: fastn-p2p protocol set"
        )
    elif paired.updated:
        write_message(f"{paired.name} was in the address book already; its ticket is new.")
    else:
        write_message(f"Added {paired.name} to the address book.")
    write_message(
        f"Fingerprint: {paired.fingerprint}. The other machine shows the same. If it does not: "
        f"fastn-p2p peer remove {paired.name}"
    )
    write_result(f"{paired.name}\t{paired.id52}")
