"""The protocols that are installed, each looked at in a process of its own: one that is broken, or hangs when it is
imported, costs the others nothing."""

from __future__ import annotations

import asyncio
from importlib.metadata import EntryPoint

from msgspec.structs import replace

from fastn_p2p_client.errors import HandlerFailed, InvalidName, P2PError
from fastn_p2p_client.ipc.messages import (
    ListProtocols,
    ProtocolInfo,
    ProtocolList,
)
from fastn_p2p_client.names import check_name

from ...identity.one_shot_worker import (
    DescribeProtocol,
    ProtocolDescription,
)
from ...installed_protocols import installed_entry_points
from ..context import (
    ASIDE_AT_ONCE,
    GatewayContext,
)
from ..one_shot import run_one_shot

__all__ = ["describe_installed", "list_protocols"]


async def list_protocols(desk: GatewayContext, _message: ListProtocols, _: bytes) -> ProtocolList:
    return await describe_installed(desk.worker_slots, desk.settings.memory)


async def describe_installed(turns: asyncio.Semaphore | None = None, memory: int = 0) -> ProtocolList:
    """All that are installed here, by name.

    Args:
        turns: taken by each process. memory: bytes that each may have; 0 for no limit.
    """
    turns = turns or asyncio.Semaphore(ASIDE_AT_ONCE)
    found: dict[str, EntryPoint] = {}
    hidden: list[ProtocolInfo] = []
    for entry in installed_entry_points():
        if entry.name not in found:
            found[entry.name] = entry
        elif (entry.value, _origin(entry)) != (found[entry.name].value, _origin(found[entry.name])):
            name, version = _origin(found[entry.name])
            hidden.append(_broken(entry, f"hidden by the protocol of the same name of {name} {version}"))
    looked_at = await asyncio.gather(*(_describe(entry, turns, memory) for entry in found.values()))
    return ProtocolList(sorted([*looked_at, *hidden], key=lambda info: info.name))


async def _describe(entry: EntryPoint, turns: asyncio.Semaphore, memory: int) -> ProtocolInfo:
    try:
        check_name(entry.name, "a protocol")
        description = await run_one_shot(
            turns, memory, DescribeProtocol(entry.name, entry.value), "", ProtocolDescription
        )
    except InvalidName as error:
        return _broken(entry, str(error))
    except HandlerFailed as error:
        return _broken(entry, error.reason)
    except P2PError as error:
        return _broken(entry, str(error))
    if description is None:
        return _broken(entry, "nothing is known about it")
    return replace(
        _broken(entry, ""),
        description=description.text,
        public=description.public,
        requests=description.requests,
        streams=description.streams,
        config_schema=description.schema,
    )


def _broken(entry: EntryPoint, problem: str) -> ProtocolInfo:
    distribution, version = _origin(entry)
    return ProtocolInfo(
        name=entry.name[:100], code=entry.value[:200], distribution=distribution, version=version, problem=problem
    )


def _origin(entry: EntryPoint) -> tuple[str, str]:
    """Distribution and version."""
    if entry.dist is None:
        return "", ""
    metadata = entry.dist.metadata  # of a damaged distribution, these fields may be missing
    return str(metadata["Name"] or "")[:100], str(metadata["Version"] or "")[:100]
