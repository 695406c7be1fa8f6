"""Footprint: memory of a whole daemon with one identity, and what eight sessions leave of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from .flow import Flow
from .processes import pss
from .results import Outcome, Statement, Table
from .system import Daemon, System, clean_environment

__all__ = ["measure"]

_MEGA: Final = 1e6
_QUIET: Final = 3.0
"""Seconds of quiet before memory is read."""
_AFTER: Final = 10.0
"""Seconds from the end of the sessions until memory is read again."""
_STREAMS: Final = 8
_WARM_UP: Final = 0.2
_NAME: Final = "more-0"
_FIRST_ANSWER: Final = 10.0


async def measure(stack: AsyncExitStack, root: Path, seconds: float, on_progress: Callable[[str], Any]) -> Outcome:
    """Daemons of its own below ``root``; the sessions go to the handler for ``seconds``, then from it."""
    on_progress("footprint: a daemon with one identity, alone")
    lone = await Daemon.start(root / "lone", clean_environment(FASTN_HOST_DIRECTORY=str(root / "hosts")))
    stack.push_async_callback(lone.stop)
    peer = await lone.create_identity(_NAME)
    await lone.bring_online(_NAME)
    await lone.client.call(_NAME, peer, "Echo", request={"message": "hello"})
    await asyncio.sleep(_QUIET)
    alone = await _by_process(lone)

    on_progress("footprint: the same beside two others")
    system = await System.start(stack, root, streams=True)
    await system.call_until_answered(peer, _FIRST_ANSWER)
    await asyncio.sleep(_QUIET)
    parts = await _by_process(lone)
    whole, whole_alone = (sum(each.values()) / _MEGA for each in (parts, alone))
    lone_row = Statement.of("daemon", [whole], f"{len(parts)} processes; {whole_alone:.1f} MB alone on the machine")

    on_progress(f"footprint: {_STREAMS} sessions")
    before = await _of_both(system)
    for command in ("pour", "draw"):
        await system.program.do(command, list[Flow], streams=_STREAMS, seconds=seconds, warm_up=_WARM_UP)
    peak = await _of_both(system)
    await asyncio.sleep(_AFTER)
    after = await _of_both(system)
    kept = sum(after.values()) - sum(before.values())
    return Outcome(
        statements=[lone_row, Statement.of("kept", [kept / _MEGA], f"both daemons, {len(before)} processes")],
        tables=[
            Table(
                "Memory (PSS) of a daemon with one identity",
                ["process", "MB", "alone"],
                [
                    [name, _shown(size), _shown(alone.get(name, 0))]
                    for name, size in sorted(parts.items(), key=lambda item: -item[1])
                ],
                "The identity serves Echo and has answered a call. Shared pages count in part. The musts and aims are "
                "for a daemon beside two others, which share the code of its libraries: of iroh alone 10 MB. The last "
                "column is that of a daemon that is alone on the machine.",
            ),
            Table(
                f"Memory (PSS) before, right after and {_AFTER:g} s after {_STREAMS} sessions at once, MB",
                ["process", "before", "right after", "later"],
                [[name, *(_shown(each.get(name, 0)) for each in (before, peak, after))] for name in before],
                f"{_STREAMS} sessions to the handler for {seconds:g} s, then {_STREAMS} from it.",
            ),
        ],
    )


async def _by_process(daemon: Daemon, prefix: str = "") -> dict[str, int]:
    """Memory of each process by its name."""
    named = {pid: name for name, pid in (await daemon.pids()).items()}
    found: dict[str, int] = {}
    for pid in daemon.processes():
        name = named.get(pid) or ("supervisor" if pid == daemon.pid else "fork server")
        found[prefix + name] = found.get(prefix + name, 0) + pss([pid])
    return found


async def _of_both(system: System) -> dict[str, int]:
    return await _by_process(system.one, "caller: ") | await _by_process(system.two, "callee: ")


def _shown(size: int) -> str:
    return f"{size / _MEGA:.1f}"
