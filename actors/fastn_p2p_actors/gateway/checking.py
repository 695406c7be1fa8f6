"""Asks a short-lived process whether a protocol would start with a config: see ``identity.check``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import HandlerFailed
from fastn_p2p_client.messages import UNDECODABLE, Done, Failure

from ..identity.check import CHECK_SECONDS, MODULE, Question
from ..store import IdentityFile

__all__ = ["check_config"]

_MAX_OUTPUT: Final = 2000

_answer: Final = msgspec.msgpack.Decoder(Done | Failure)

log = logging.getLogger(__name__)


async def check_config(identity: IdentityFile, protocol: str, instance: str, workspace: Path, config: bytes) -> None:
    """
    Raises:
        InvalidConfig, ProtocolNotInstalled: as they say.
        HandlerFailed: the protocol's code fails, or takes longer than ``CHECK_SECONDS``.
    """
    question = Question(
        identity=identity.name,
        key=bytes(identity.key),
        protocol=protocol,
        instance=instance,
        workspace=str(workspace),
        config=config,
    )
    # -P: what lies in the daemon's working directory is not imported.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        MODULE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output = noise = b""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            output, noise = await process.communicate(msgspec.msgpack.encode(question))
        reply = _answer.decode(output)
    except TimeoutError as error:
        reason = f"checking its config took longer than {CHECK_SECONDS:g} s"
        raise HandlerFailed(peer=identity.name, protocol=protocol, reason=reason) from error
    except UNDECODABLE as error:
        words = noise[-_MAX_OUTPUT:].decode("utf-8", "replace")
        log.error("checking %s: exit code %s: %s", protocol, process.returncode, words)
        reason = f"the process that checks its config ended with exit code {process.returncode}"
        raise HandlerFailed(peer=identity.name, protocol=protocol, reason=reason) from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if isinstance(reply, Failure):
        raise reply.error()
