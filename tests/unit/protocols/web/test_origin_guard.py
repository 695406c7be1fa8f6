"""Requests that a browser makes for pages of other sites are refused."""

from __future__ import annotations

import pytest

from fastn_p2p.protocols.web.origin_guard import OriginGuard
from fastn_p2p_client.http.request_reader import RequestHead, RequestRefused

GUARD = OriginGuard(["127.0.0.1:20001", "web.bob.localhost:20001"], "http://127.0.0.1:20001/")
OWN = "127.0.0.1:20001"


def head(method: str = "GET", **headers: str) -> RequestHead:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return RequestHead(method.encode(), b"/", b"1.1", named)


@pytest.mark.parametrize(
    "request_head",
    [
        head(Host=OWN),
        head(Host="Web.Bob.localhost:20001"),
        head("POST", Host=OWN, Origin="http://127.0.0.1:20001", Sec_Fetch_Site="same-origin"),
        head(Host=OWN, Sec_Fetch_Site="none", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document"),
        head(Host=OWN, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document"),
    ],
)
def test_requests_of_its_own_pages_and_of_links_pass(request_head: RequestHead) -> None:
    assert GUARD.check(request_head) is request_head


@pytest.mark.parametrize(
    "request_head",
    [
        head(),
        head(Host="evil.test:20001"),
        head(Host="127.0.0.1"),
        head(Host="127.0.0.1:20001.evil.test"),
        head(Host="127.0.0.1:20002"),
        head("POST", Host=OWN, Origin="http://evil.test"),
        head("POST", Host=OWN, Origin="null"),
        head("POST", Host=OWN, Origin="https://127.0.0.1:20001"),
        head("POST", Host=OWN, Origin="http://127.0.0.1:8000", Sec_Fetch_Site="same-site"),
        head("POST", Host=OWN, Origin="http://web.bob.localhost:20001"),
        head(Host=OWN, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="script"),
        head(Host=OWN, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image"),
        head(Host=OWN, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe"),
        head("POST", Host=OWN, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document"),
        head(Host=OWN, Connection="upgrade", Upgrade="websocket", Origin="http://evil.test"),
    ],
)
def test_requests_of_other_sites_are_refused(request_head: RequestHead) -> None:
    with pytest.raises(RequestRefused) as refused:
        GUARD.check(request_head)
    assert refused.value.status == 403
