"""Questions about bindings that a one-shot worker answers, because protocol code has to run for them."""

from __future__ import annotations

import logging
from typing import TypeVar

from fastn_p2p_client.errors import StorageFailed, StorageHeld
from fastn_p2p_client.ipc.messages import Ack

from ..identity.one_shot_worker import CheckConfig, Data, DeclaredPermissions, DescribeData, RunOnDelete
from ..storage.identity_store import BindingFile, IdentityFile
from .context import GatewayContext

_Question = TypeVar("_Question", CheckConfig, RunOnDelete, DescribeData)

log = logging.getLogger(__name__)


async def check_config(
    context: GatewayContext, identity: IdentityFile, record: BindingFile, granted: tuple[str, ...]
) -> tuple[str, ...]:
    """Check that the binding would start with the record's config. Return the permissions that it declares.

    If it declares others than those in ``granted``, its ``on_check`` has not run.

    Raises:
        InvalidConfig: the protocol rejects the config.
        ProtocolNotInstalled: no installed package has the protocol.
        HandlerFailed: the protocol's code failed, or took longer than ``WORKER_TIMEOUT``.
    """
    question = _about(CheckConfig, context, identity, record, granted)
    return (await context.workers.run(question, identity.name, DeclaredPermissions)).lines


async def run_on_delete(context: GatewayContext, identity: IdentityFile, record: BindingFile) -> None:
    """Run ``on_delete`` of the protocol's code, if it was ever activated. Errors are logged, except these.

    Raises:
        StorageFailed, StorageHeld: data of the binding that is not in its workspace could not be deleted.
    """
    if not context.store.is_created(identity.name, record.protocol, record.instance):
        return
    question = _about(RunOnDelete, context, identity, record)
    try:
        await context.workers.run(question, identity.name, Ack)
    except (StorageFailed, StorageHeld):
        raise
    except Exception as error:
        log.error("on_delete of %s (%s) of %s: %s", record.protocol, record.instance, identity.name, error)


async def describe_data(context: GatewayContext, identity: IdentityFile, record: BindingFile) -> str | None:
    """Return the protocol's description of the data in the workspace; None if it has none.

    Raises:
        ProtocolNotInstalled: no installed package has the protocol.
        HandlerFailed: the protocol's code failed, or took longer than ``WORKER_TIMEOUT``.
    """
    question = _about(DescribeData, context, identity, record)
    return (await context.workers.run(question, identity.name, Data)).text


def _about(
    kind: type[_Question],
    context: GatewayContext,
    identity: IdentityFile,
    record: BindingFile,
    granted: tuple[str, ...] | None = None,
) -> _Question:
    """Return a question about the binding. By default its permissions are those that are stored."""
    if granted is None:
        granted = context.permissions.granted(identity.name, record.protocol, record.instance)
    return kind(
        identity=identity.name,
        key=bytes(identity.key),
        protocol=record.protocol,
        instance=record.instance,
        workspace=str(context.store.workspace(identity.name, record.protocol, record.instance)),
        config=bytes(record.config),
        code=record.code,
        home=str(context.home.path),
        granted=granted,
    )
