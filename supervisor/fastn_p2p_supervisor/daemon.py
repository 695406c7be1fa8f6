"""Life of the daemon from its start to its exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import random
from typing import Any, Final

from fastn_p2p_actors.daemon_settings.sections import NetworkSection
from fastn_p2p_actors.runtime import last_exit, process_setup
from fastn_p2p_actors.runtime.log_files import configure_logging
from fastn_p2p_client.home import Home
from fastn_p2p_client.plain_text import plain

from . import sd_notify
from .actor_specs import ActorSpecs, DaemonConfig, online_identities
from .child import ProcessState
from .descriptor_broker import DescriptorBroker
from .fork_server import ForkServer, ForkServerFailed
from .home_lock import HomeLock, remove_runtime_files
from .orphan_reaper import OrphanReaper
from .process_file import ProcessFile
from .process_tree import ProcessTree
from .restart_policy import FORK_SERVER, RestartHistory
from .sd_notify import SystemdNotifier
from .user_names import lead_separate_users

EXIT_FAILED: Final = 1
"""Exit code after a failure that the daemon could not survive. stderr and the log give the reason."""
EXIT_INTERRUPTED: Final = 130
"""Exit code after a second SIGINT, which kills all processes."""
STARTUP_TIMEOUT: Final = 20.0
"""Seconds after which the daemon counts as ready, even if some identities are still starting."""

log = logging.getLogger("supervisor")


def run(home: Home, network: NetworkSection, config: DaemonConfig = DaemonConfig()) -> int:  # noqa: B008  (immutable)
    """Run the daemon until it is told to stop (SIGTERM, SIGINT) or cannot go on. Return the exit code.

    It prints a line on stderr when everything is ready, and one when it ends by itself. Call it in the main thread of a
    process that does nothing else: it changes directory, umask, limits and signal handlers.

    Args:
        home: the daemon's home directory.
        network: mode, relays and directories at the start. ``config.toml`` is read for later changes only.
        config: actors and time limits; tests change them.

    Raises:
        DaemonAlreadyRunning: another daemon uses this home.
        HomeUnusable: other users own or may write the home, or it cannot be written; or separate users cannot read the
            daemon's code.
    """
    started_ms = process_setup.boot_ms()
    os.umask(0o077)
    process_setup.make_undumpable()
    if config.users is not None:
        lead_separate_users(config.users)
    home_lock = HomeLock.acquire(home, config.users)
    try:
        os.chdir("/")  # the fork server's interpreter would search modules where the daemon was started
        process_setup.set_title("p2p")
        process_setup.forbid_core_files()
        process_setup.raise_file_limit()
        notifier = SystemdNotifier.from_environment(os.environ, os.getpid())
        process_setup.erase_variables(*sd_notify.VARIABLES)
        forks = ForkServer(home.sockets / "run", RestartHistory(FORK_SERVER, random))
        reaper = OrphanReaper(lambda: forks.pid)
        try:
            try:
                if config.vault_page < 0:
                    forks.start_as_fork([home_lock.descriptor, *notifier.descriptors])
                else:  # this program may have read the passphrase, so no process may be a copy of it
                    forks.ensure_running()
            finally:
                configure_logging(home, "supervisor")  # after the fork, so that children have no open log of this one
            previous = last_exit.begin(home)
            if previous is not None and previous.code:
                log.warning("the previous daemon ended: %s", previous)
            daemon = _Daemon(home, network, config, forks, reaper, notifier)
            code = _run_on_uvloop(daemon.serve(started_ms))
            if code != EXIT_FAILED:
                last_exit.note(home, code, "it was stopped")
            return code
        except ForkServerFailed as error:
            return _fail(home, str(error))
        finally:
            forks.stop()
            reaper.reap()
            notifier.close()
    finally:
        home_lock.release()


class _Daemon:
    """A run of the daemon, inside its event loop."""

    def __init__(
        self,
        home: Home,
        network: NetworkSection,
        config: DaemonConfig,
        forks: ForkServer,
        reaper: OrphanReaper,
        notifier: SystemdNotifier,
    ) -> None:
        self._home = home
        self._network = network
        self._config = config
        self._forks = forks
        self._reaper = reaper
        self._notifier = notifier
        self._state: str = ProcessState.STARTING
        self._interrupted = False

    async def serve(self, started_ms: int) -> int:
        """Run until the daemon is told to stop or cannot go on. Return the exit code."""
        self._started_ms = started_ms
        self._stop = asyncio.Event()
        self._file = ProcessFile(self._home.process_file, self._process_report)
        specs = ActorSpecs(self._home, self._network, started_ms, self._config)
        self._tree = ProcessTree(
            specs.core,
            specs.identity,
            self._forks,
            changed=self._file.changed,
            flush=self._file.flush,
            sweep=self._reaper.reap,
            open_for=DescriptorBroker(self._home, specs.worker_account).open,
            worker_account=specs.worker_account,
            on_ended=partial(remove_runtime_files, self._home),
            timeouts=self._config.timeouts,
        )
        self._tree.keep("vault", self._config.vault_page)
        self._listen_to_signals()
        log.info("starting for %s, network %s, pid %d", self._home.path, self._network.mode, os.getpid())
        self._tree.start(online_identities(self._home))
        readiness = asyncio.create_task(self._report_ready())
        watchdog = asyncio.create_task(self._watchdog_loop())
        stopped = asyncio.create_task(self._stop.wait())
        ends: list[asyncio.Future[Any]] = [stopped, self._tree.failure]
        try:
            await asyncio.wait([readiness, *ends], return_when=asyncio.FIRST_COMPLETED)
            if readiness.done():
                readiness.result()
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return await self._shut_down()
        finally:
            for task in (readiness, watchdog, stopped):
                task.cancel()
            self._tree.kill()
            self._file.remove()

    async def _report_ready(self) -> None:
        """Wait until the actors are ready, then tell the service manager, the log and stderr."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STARTUP_TIMEOUT):
                await self._tree.all_started()
        await self._tree.core_ready()
        states = [child.state for child in self._tree.identities.values()]
        online = states.count(ProcessState.READY)
        if self._is_locked:
            status = "the vault is locked: fastn-p2p vault unlock"
        else:
            status = f"network {self._network.mode}, {online} {'identity' if online == 1 else 'identities'} online"
            if online < len(states):
                status += f", {len(states) - online} not"
        ready = f"fastn-p2p {self._config.version} ready in {_age():.2f} s"
        line = f"{ready}: home {self._home.path}, {status} (pid {os.getpid()})"
        self._state = ProcessState.READY
        self._file.write()
        self._notifier.ready(status)
        log.info("%s", line)
        _print_line(line)

    @property
    def _is_locked(self) -> bool:
        """Return whether the vault's keys are sealed, and no page with the master key is kept for it."""
        return self._home.vault_slots.exists() and self._tree.kept("vault") < 0

    async def _shut_down(self) -> int:
        """Stop all processes. Return the exit code."""
        failure = self._tree.failure.result() if self._tree.failure.done() else ""
        self._state = ProcessState.STOPPING
        self._notifier.stopping(failure or "stopping")
        self._file.changed()
        log.info("stopping")
        timeouts = self._config.timeouts
        await self._tree.stop(timeouts.failed_stop if failure else timeouts.whole_stop)
        if failure:
            return _fail(self._home, failure)
        log.info("stopped")
        return EXIT_INTERRUPTED if self._interrupted else 0

    async def _watchdog_loop(self) -> None:
        """Ping the service manager while the core actors are healthy. When they recover, ping soon."""
        interval = self._notifier.watchdog
        if interval is None:
            return
        retry = min(interval / 4, self._config.timeouts.tick)
        while True:
            if self._tree.healthy:
                self._notifier.alive()
                await asyncio.sleep(interval)
            else:
                await asyncio.sleep(retry)

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self._stop.set)

    def _interrupt(self) -> None:
        if self._stop.is_set():
            self._interrupted = True
            self._tree.kill()
        self._stop.set()

    def _process_report(self) -> dict[str, Any]:
        own, *children = self._tree.report()
        return {
            "supervisor": own.pid,
            "state": self._state,
            "started_ms": self._started_ms,
            "version": self._config.version,
            "python": sys.executable,
            "network": self._network.mode,
            "processes": [
                {
                    "name": child.name,
                    "pid": child.pid,
                    "state": child.state,
                    "started_ms": child.started_ms,
                    "restarts": child.restarts,
                    "last_exit": child.last_exit,
                }
                for child in children
            ],
        }


def _run_on_uvloop(work: Coroutine[Any, Any, int]) -> int:
    import uvloop

    return uvloop.run(work)


def _fail(home: Home, reason: str) -> int:
    log.critical("%s. The daemon ends. A service manager or `fastn-p2p daemon` starts it again.", reason)
    last_exit.note(home, EXIT_FAILED, reason)
    _print_line(f"fastn-p2p: {reason}; see {home.logs}. `fastn-p2p daemon` starts it again")
    return EXIT_FAILED


def _print_line(line: str) -> None:
    with suppress(OSError):  # stderr is closed
        sys.stderr.write(plain(line) + "\n")
        sys.stderr.flush()


def _age() -> float:
    """Return the seconds since the start of this process (proc_pid_stat(5), field 22: ticks since boot)."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
