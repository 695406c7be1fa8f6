"""``DaemonThreadPool``: threads start as needed, are reused, and never keep a process alive."""

from __future__ import annotations

import contextvars
import subprocess
import sys
import threading

import pytest

from fastn_p2p_client.serving.handler_threads import DaemonThreadPool

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="unknown")


def test_runs_in_another_thread_with_the_callers_context_variables() -> None:
    threads = DaemonThreadPool()
    WHO.set("me")
    assert threads.submit(lambda: (WHO.get(), threading.current_thread())).result(60)[0] == "me"
    assert threads.submit(threading.get_ident).result(60) != threading.get_ident()


def test_reuses_threads_and_never_starts_more_than_the_limit() -> None:
    threads, go_on, begun = DaemonThreadPool(2), threading.Event(), threading.Semaphore(0)
    first = threads.submit(threading.get_ident).result(60)

    def ident() -> int:
        begun.release()
        go_on.wait(60)
        return threading.get_ident()

    blocked = [threads.submit(ident) for _ in range(3)]
    assert all(begun.acquire(timeout=60) for _ in range(2)), "both threads have one"
    waiting = threads.submit(threading.get_ident)
    assert waiting.cancel()  # it has not begun: both are taken
    go_on.set()
    idents = {each.result(60) for each in blocked}
    assert len(idents) <= 2
    assert first in idents


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), StopIteration(1)])
def test_the_caller_gets_the_exception_and_the_thread_goes_on(error: BaseException) -> None:
    def fail() -> None:
        raise error

    threads = DaemonThreadPool(1)
    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
        threads.submit(fail).result(60)
    assert threads.submit(lambda: 7).result(60) == 7


def test_a_handler_that_never_returns_does_not_keep_the_process_alive() -> None:
    code = (
        "import threading; from fastn_p2p_client.serving.handler_threads import handler_threads as t;"
        "began = threading.Event(); t.submit(lambda: (began.set(), threading.Event().wait())); began.wait(60);"
        "print('end')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert ended.stdout == "end\n"
