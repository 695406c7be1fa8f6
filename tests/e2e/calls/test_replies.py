"""Replies and errors that JSON has no form for, as the command line shows them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from fastn_p2p_client import ApplicationError, sync
from tests.support.daemons import eventually
from tests.support.two_daemons import TwoDaemons

VALUES: dict[str, Any] = {
    "none": {None: 1},
    "bool": {True: 1, False: [{None: 2}]},
    "tuple": {(1, 2): 3},
    "number": {1: 2, 1.5: 3},
    "both": {1: "a", "1": "b"},
    "bytes": {b"x": b"y"},
    "nan": [float("nan"), {float("inf"): 1}],
    "ext": msgspec.msgpack.Ext(5, b"x"),
    "large": 2**64 - 1,
    "too large": 2**64,
    "no value": object(),
    "surrogate": "\udc80",
}
PRINTED = {
    "none": '{"null":1}',
    "bool": '{"true":1,"false":[{"null":2}]}',
    "tuple": '{"[1,2]":3}',
    "number": '{"1":2,"1.5":3}',
    "both": '[[1,"a"],["1","b"]]',
    "bytes": '{"eA==":"eQ=="}',
    "nan": '[null,{"Infinity":1}]',
    "ext": '{"ext":5,"data":"eA=="}',
    "large": "18446744073709551615",
}


@pytest.fixture(scope="module")
def odd(daemons: TwoDaemons) -> Iterator[None]:
    """bob's Odd, which returns what it is asked for, or raises it as the data of an error."""
    server = sync.Server("bob", daemons.two.home)

    @server.handle_requests("Odd", access="everyone")
    def reply(which: str) -> Any:
        return VALUES[which]

    @server.handle_requests("Odd", command="error")
    def error(which: str) -> Any:
        raise ApplicationError("Odd", "see the data", VALUES[which])

    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        assert server.ready.wait(60)
        yield
    finally:
        server.close()
        thread.join(60)
    eventually(lambda: not thread.is_alive(), "it has ended")


@pytest.mark.parametrize("which", VALUES)
def test_each_reply_is_printed_or_is_the_handler_s_failure(daemons: TwoDaemons, odd: None, which: str) -> None:
    done = daemons.one.cli("call", daemons.bob, "Odd", "--data", f'"{which}"')
    failed = daemons.one.cli("call", daemons.bob, "Odd", "--command", "error", "--data", f'"{which}"')
    if which in PRINTED:
        assert (done.returncode, done.stdout) == (0, PRINTED[which] + "\n"), done.stderr
        assert failed.returncode == 1
        assert failed.stderr.splitlines()[-1] == PRINTED[which]
    else:
        assert (done.returncode, failed.returncode) == (12, 12)
        assert "Traceback" not in done.stderr + failed.stderr
