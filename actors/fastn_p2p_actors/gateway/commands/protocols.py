"""Command that lists the installed protocols.

Each is imported in a process of its own. A protocol that is broken or hangs at import costs the others nothing.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import EntryPoint

from msgspec.structs import replace

from fastn_p2p_client.errors import HandlerFailed, InvalidName, P2PError
from fastn_p2p_client.ipc.messages import ListProtocols, ProtocolInfo, ProtocolList
from fastn_p2p_client.names import check_name

from ...identity.one_shot_worker import DescribeProtocol, ProtocolDescription
from ...installed_protocols import installed_entry_points
from ..context import GatewayContext
from ..one_shot_workers import OneShotWorkers


async def list_protocols(context: GatewayContext, _message: ListProtocols, _: bytes) -> ProtocolList:
    return await describe_installed(context.workers)


async def describe_installed(workers: OneShotWorkers) -> ProtocolList:
    """Return all installed protocols by name.

    Args:
        workers: imports each of them.
    """
    found: dict[str, EntryPoint] = {}
    hidden: list[ProtocolInfo] = []
    for entry in installed_entry_points():
        if entry.name not in found:
            found[entry.name] = entry
        elif (entry.value, _origin(entry)) != (found[entry.name].value, _origin(found[entry.name])):
            name, version = _origin(found[entry.name])
            hidden.append(_broken(entry, f"hidden by the protocol of the same name of {name} {version}"))
    described = await asyncio.gather(*(_describe(entry, workers) for entry in found.values()))
    return ProtocolList(sorted([*described, *hidden], key=lambda info: info.name))


async def _describe(entry: EntryPoint, workers: OneShotWorkers) -> ProtocolInfo:
    try:
        check_name(entry.name, "a protocol")
        description = await workers.run(DescribeProtocol(entry.name, entry.value), "", ProtocolDescription)
    except InvalidName as error:
        return _broken(entry, str(error))
    except HandlerFailed as error:
        return _broken(entry, error.reason)
    except P2PError as error:
        return _broken(entry, str(error))
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
    """Return distribution and version."""
    if entry.dist is None:
        return "", ""
    metadata = entry.dist.metadata  # these fields may be missing in a damaged distribution
    return str(metadata["Name"] or "")[:100], str(metadata["Version"] or "")[:100]
