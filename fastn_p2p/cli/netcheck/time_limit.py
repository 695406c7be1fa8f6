"""Time limit of the checks: blocking steps run in threads that are left alone when their time is over."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

Result = TypeVar("Result")

LIMIT: Final = 9.5
"""Seconds for all checks together, which run side by side."""
DNS_TIMEOUT: Final = 4.0
"""Seconds for the addresses of a name. The C library waits for 20 s where a network drops queries."""


def late_text(seconds: float) -> str:
    """Return the text of a check that did not end in its time."""
    return f"no complete answer within {seconds:.1f} s"


class DnsTimeout(OSError):
    """DNS has not answered."""


async def run_in_thread(
    function: Callable[..., Result], *arguments: object, seconds: float, otherwise: Result
) -> Result:
    """Return the result of a blocking function, or ``otherwise`` if it has none within so many seconds.

    The command does not wait for the thread at its end.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def finish(result: Result | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = function(*arguments)
        except Exception as failure:
            error = failure
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, daemon=True, name="netcheck").start()
    try:
        async with asyncio.timeout(seconds):
            return await done
    except TimeoutError:
        return otherwise


def find_addresses(host: str, port: int, kind: int) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
    """Return what ``socket.getaddrinfo`` returns.

    Raises:
        OSError: the name is not found.
        DnsTimeout: DNS has not answered within 4 seconds.
    """
    found: list[object] = []

    def resolve() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=kind))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=resolve, daemon=True, name="netcheck DNS")
    thread.start()
    thread.join(DNS_TIMEOUT)
    if not found:
        raise DnsTimeout
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]  # type: ignore[return-value]
