"""Requests that pages of other sites may not make: a browser sends them to a loopback address, too.

The service knows its caller by the connection, without a password or a cookie. So a page of any other site must not be
able to use it in the caller's name: neither under a name of its own that resolves to 127.0.0.1 (DNS rebinding), nor by
a request across sites, which a browser makes for any page. A link that somebody follows is allowed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from fastn_p2p_client.http.request_reader import RequestHead, RequestRefused

_OWN: Final = (b"same-origin", b"none")
_SAFE: Final = (b"GET", b"HEAD")


class OriginGuard:
    """Checks requests to a local address.

    Args:
        hosts: values of Host under which the address may be used, in lower case.
        url: address to name in an error.
    """

    def __init__(self, hosts: Collection[str], url: str) -> None:
        self._hosts = frozenset(host.encode() for host in hosts)
        self._url = url

    def check(self, head: RequestHead) -> RequestHead:
        """Return the head.

        Raises:
            RequestRefused: a page of another site may have made the request.
        """
        host = (head.value(b"host") or b"").lower()
        if host not in self._hosts:
            shown = host[:100].decode("ascii", "replace")
            raise RequestRefused(403, f"This address is not {shown or 'without a name'}. Use {self._url}")
        origin = head.value(b"origin")
        if origin is not None and origin.lower() != b"http://" + host:
            raise RequestRefused(403, "A page of another site may not use this service. Open it by its own address.")
        site = head.value(b"sec-fetch-site")
        if site is not None and site not in _OWN and not _is_navigation(head):
            raise RequestRefused(403, "A page of another site may not load this. Open it by its own address.")
        return head


def _is_navigation(head: RequestHead) -> bool:
    return (
        head.method in _SAFE
        and head.value(b"sec-fetch-mode") == b"navigate"
        and head.value(b"sec-fetch-dest") == b"document"
    )
