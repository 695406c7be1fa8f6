"""Permissions that protocols declare for a config.

Only code that comes with the daemon runs here. A one-shot worker finds out the declarations of other protocols.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from fastn_p2p_client.claims.claims_url import parse_claims
from fastn_p2p_client.errors import HandlerFailed, InvalidConfig, P2PError
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.protocol import Permissions, Protocol

from ..installed_protocols import indexed_code, is_builtin, load
from ..storage.identity_store import BindingFile, IdentityStore

log = logging.getLogger(__name__)


def declared_permissions(protocol: str, code: str, config: bytes) -> tuple[str, ...]:
    """Return the lines of ``Permissions`` that the protocol declares. This runs its code.

    Raises:
        ProtocolNotInstalled: no installed package has the protocol.
        InvalidConfig: the config does not fit, or names a path or address that is none.
        HandlerFailed: the protocol's code failed.
    """
    try:
        cls = load(protocol, code)
    except P2PError:
        raise
    except Exception as error:
        raise HandlerFailed(peer="", protocol=protocol, reason=f"its import failed: {error}") from error
    try:
        decoded: Any = msgspec.json.decode(config or b"{}", type=cls.Config)
        return _lines_of(cls, decoded)
    except (ValueError, *UNDECODABLE) as error:
        raise InvalidConfig(protocol=protocol, reason=str(error)) from error
    except Exception as error:
        reason = f"permissions failed: {type(error).__name__}: {error}"
        raise HandlerFailed(peer="", protocol=protocol, reason=reason) from error


def _lines_of(cls: type[Protocol], config: Any) -> tuple[str, ...]:
    found = cls.permissions(config)
    if not isinstance(found, Permissions):
        raise TypeError(f"it returned {type(found).__name__}, not Permissions")
    return found.lines()


def check_claims(protocol: str, url: str, *, with_files: bool = True) -> None:
    """Check the URL of a store of claims, if there is one. Blocks.

    Args:
        with_files: check its files and its library as well. The gateway may not read them.

    Raises:
        InvalidConfig: it cannot be used.
    """
    if url:
        try:
            store = parse_claims(url)
            if with_files:
                store.check("fastn-p2p")
        except ValueError as error:
            raise InvalidConfig(protocol=protocol, reason=f"claims: {error}") from None


def claims_permissions(url: str) -> tuple[str, ...]:
    """Return the permissions that a store of claims needs, as lines; none for an invalid URL."""
    try:
        return parse_claims(url).permissions().lines() if url else ()
    except ValueError:
        return ()


def declared_by_builtins(store: IdentityStore, identity: str) -> dict[str, tuple[str, ...]]:
    """Return the permissions of the identity's bindings of the daemon's own protocols, by ``Protocol/instance``."""
    found: dict[str, tuple[str, ...]] = {}
    for record in store.bindings(identity).usable:
        if not record.program and is_builtin_binding(record):
            try:
                lines = declared_permissions(record.protocol, record.code, bytes(record.config))
            except P2PError as error:
                log.warning("%s (%s) gets no permissions: %s", record.protocol, record.instance, error)
            else:
                found[f"{record.protocol}/{record.instance}"] = lines
    return found


def is_builtin_binding(record: BindingFile) -> bool:
    """Return whether the binding's code comes with the daemon."""
    return is_builtin(record.code or indexed_code(record.protocol))
