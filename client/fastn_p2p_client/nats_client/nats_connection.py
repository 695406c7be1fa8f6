"""Making, closing and judging a connection to a NATS server."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

from .nats_server import InvalidServer, NatsServer, NatsUnusable

if TYPE_CHECKING:
    from .direct_client import DirectClient

CONNECT_SECONDS: Final = 3
CLOSE_SECONDS: Final = 1
RECONNECT_SECONDS: Final = 0.25
"""Seconds between two attempts to reach a server that was there."""


async def connect(server: NatsServer, label: str, **callbacks: Any) -> DirectClient:
    """Return a connection that nats-py makes again after it was lost.

    Raises:
        NatsUnusable: there is none. ``reason`` says why, and what to do.
    """
    try:
        from .direct_client import DirectClient
    except ModuleNotFoundError as error:
        if error.name not in ("nats", "nkeys"):
            raise
        raise NatsUnusable(
            server=server.url, reason=f"{error.name} is not installed: pip install 'fastn-p2p-client[nats]'"
        ) from None

    async def ignore(*_: object) -> None:
        pass

    on_error = callbacks.pop("on_error", ignore)
    errors: list[Exception] = []
    is_connected = False

    async def on_any_error(error: Exception) -> None:
        if is_connected:
            await on_error(error)
        else:
            errors.append(error)

    client = DirectClient(needs_tls=server.needs_tls)
    try:
        options = await asyncio.to_thread(server.options)
        await client.connect(
            **options,
            name=label,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # until the first connection
            reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]  # it sleeps so long
            connect_timeout=CONNECT_SECONDS,
            error_cb=on_any_error,
            **{
                f"{event}_cb": callbacks.get(f"on_{event}", ignore)
                for event in ("disconnected", "reconnected", "closed")
            },
        )
    except InvalidServer as error:
        raise NatsUnusable(server=server.url, reason=str(error)) from None
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed: pip install 'fastn-p2p-client[nats]'"
        raise NatsUnusable(server=server.url, reason=reason) from None
    except Exception as error:
        await close(client)
        raise NatsUnusable(server=server.url, reason=reason_of((*errors, error)[0], server)) from error
    is_connected = True
    client.options.update(allow_reconnect=True, max_reconnect_attempts=-1)
    return client


async def close(client: DirectClient) -> None:
    """Close a connection. nats-py waits without end for one whose TLS handshake has failed, so this does not."""
    closing = asyncio.create_task(client.close())
    try:
        await asyncio.wait([closing], timeout=CLOSE_SECONDS)
    finally:
        closing.cancel()


def reason_of(error: BaseException, server: NatsServer) -> str:
    """Return in words why a server cannot be used, and what to do."""
    import ssl

    text = str(error)
    if "authorization" in text.lower():
        used = f"the credentials in {server.credentials}" if server.credentials else "a connection without credentials"
        return f"it refuses {used}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}. Give the file of its CA"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or text}"
    if isinstance(error, socket.gaierror):
        return "its host is not known. Check the URL"
    if isinstance(error, ConnectionRefusedError | TimeoutError) or "Multiple exceptions" in text:
        return "it does not answer. Start it, or check the URL"
    if isinstance(error, OSError):
        return error.strerror.lower() if error.strerror else text or type(error).__name__
    return text.removeprefix("nats: ") or type(error).__name__
