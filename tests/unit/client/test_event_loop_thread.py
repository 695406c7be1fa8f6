"""Event loop behind the blocking API: what interrupts a thread that waits for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

PROGRAM: Final = """
import asyncio, signal, threading
from fastn_p2p_client.event_loop_thread import run_blocking

def interrupt() -> None:
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

async def wait() -> None:
    print("waiting", flush=True)
    threading.Timer(0.2, interrupt).start()
    await asyncio.Event().wait()

try:
    run_blocking(wait())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_that_another_thread_receives_interrupts_the_one_that_waits() -> None:
    """Nothing wakes the main thread, in which Python handles signals."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "waiting\ninterrupted\n", done.stderr
