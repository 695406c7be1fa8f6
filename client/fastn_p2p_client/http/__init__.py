"""HTTP between peers: requests that carry their verified caller. Needs the extra ``http``: h11, httpx and wsproto.

``serve_asgi`` and ``AsgiServer`` serve an ASGI application, for instance of FastAPI, to peers. With
``SyncPeerTransport`` and ``AsyncPeerTransport``, httpx reaches what peers expose, at ``p2p://PEER/NAME/PATH``.

Layout
------

``asgi_server``        the server, and the life of the application
``asgi_connection``    the requests of one connection
``websocket_exchange`` one WebSocket
``httpx_transport``    the transports
``request_reader``     read requests, and refuse what two programs could understand differently
``chunked_body``       read chunked bodies, strictly
``request_rewriter``   pass requests on with other heads
``multiplexer``        connections that share one session, as channels of it
``stream_channel``     a channel that is read and written with await
``channel_server``     the sessions with channels that a binding serves
``caller_headers``     the headers that name the caller
``error_response``     answers that do not come from the service
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asgi_server import AsgiServer, serve_asgi
    from .httpx_transport import AsyncPeerTransport, SyncPeerTransport

__all__ = ["AsgiServer", "AsyncPeerTransport", "SyncPeerTransport", "serve_asgi"]


def __getattr__(name: str) -> Any:
    if name in ("AsgiServer", "serve_asgi"):
        from . import asgi_server as module
    elif name in ("AsyncPeerTransport", "SyncPeerTransport"):
        from . import httpx_transport as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
