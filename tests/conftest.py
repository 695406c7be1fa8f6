"""Fixtures for every test: real daemons that leave nothing behind, and settings of the test tools."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.support.daemons import Daemon
from tests.support.rewritten_modules import write_share
from tests.support.shared_daemons import SHARED_BY_FOLDER
from tests.support.time_limit import *  # noqa: F403  (hooks)

# What a user runs writes through buffers: an interpreter that does not hides what goes wrong with them at its end.
os.environ.pop("PYTHONUNBUFFERED", None)

# A shell has the programs that it starts in the background ignore these (nohup: SIGHUP), and so would every program
# that a test starts: with a handler of ours they get the default again.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else lambda *_: None)

# Deadlines of single examples say more about a shared machine than about the code.
settings.register_profile("fastn", deadline=None)
settings.load_profile("fastn")


class ByModule(LoadScopeScheduling):  # type: ignore[misc]
    """A module's tests run in one process, one after the other, since they share what costs most: daemons. So do all
    of ``chaos``, where each program takes what the machine can give, and folders whose modules share daemons."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        folder = module.rpartition("/")[0]
        return folder if folder in ("tests/chaos", *SHARED_BY_FOLDER) else module

    def remove_node(self, node: Any) -> str | None:
        """Return the test in which the process crashed, and let others do the rest of its work, but not that test.

        Left to xdist, each process that takes over would crash in the same test, and the run would assign modules
        without any test left, which never ends.
        """
        workload = self.assigned_work.pop(node)
        unfinished = [test for tests in workload.values() for test, done in tests.items() if not done]
        if not unfinished:
            return None
        crashed: str = unfinished[0]
        for scope, tests in workload.items():
            if crashed in tests:
                tests[crashed] = True
            if not all(tests.values()):
                self.workqueue[scope] = tests
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes for ``-n auto``: two more than there are processors, as most tests wait; none for one module."""
    one_module = len(config.args) == 1 and not Path(config.args[0]).is_dir()
    return 0 if one_module else len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    return ByModule(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Look for no garbage among the 300,000 objects that the tests are: neither while they are made, nor later."""
    write_share(session.config)
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


if TYPE_CHECKING:
    from tests.support.postgres_server import PostgresServer

MakeDaemon = Callable[..., Daemon]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(scope="module")
def daemons_are_programs() -> Iterator[None]:
    """Start each daemon of the module as a user does, by the interpreter: it looks at what that leaves in memory."""
    Daemon.forked = False
    yield
    Daemon.forked = True


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """A host directory of the test's own."""
    return tmp_path / "hosts"


@pytest.fixture
def make_daemon(tmp_path: Path, hosts: Path) -> Iterator[MakeDaemon]:
    """Makes daemons that share a host directory and end with the test."""
    made: list[Daemon] = []

    def make(name: str = "one", **env: str) -> Daemon:
        daemon = Daemon(tmp_path / name, hosts, **env)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.clean_up()


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    """A daemon that is ready."""
    return make_daemon().start()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this process of the tests."""
    from tests.support.postgres_server import find_programs, running_postgres  # few tests need it

    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: make services")
    with running_postgres(programs) as server:
        yield server


@pytest.fixture
def pair(make_daemon: MakeDaemon) -> tuple[Daemon, Daemon]:
    """Two daemons, ready."""
    first, second = make_daemon("one"), make_daemon("two")
    first.launch()
    second.start()
    assert first.wait_ready(), first.report()
    return first, second


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """Run async tests in uvloop, as the daemon's processes do, or in asyncio's event loop, as many programs do."""
    factories: dict[str, LoopFactory] = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("asyncio_loop") is not None:
        del factories["uvloop"]
    elif item.get_closest_marker("both_loops") is None:
        del factories["asyncio"]
    return factories
