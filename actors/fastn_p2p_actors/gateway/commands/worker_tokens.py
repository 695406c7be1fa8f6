"""Command that makes and revokes the tokens of workers on other machines."""

from __future__ import annotations

import asyncio
import secrets

from fastn_p2p_client.errors import NotForWorkers
from fastn_p2p_client.ipc.messages import ChangeWorkerTokens, WorkerTokenReply
from fastn_p2p_client.names import check_name
from fastn_p2p_client.worker_token import SECRET_BYTES, token_hash

from ..context import GatewayContext
from ..worker_bindings import announce_workers


async def change_worker_tokens(context: GatewayContext, message: ChangeWorkerTokens, _: bytes) -> WorkerTokenReply:
    names = (
        check_name(message.identity, "an identity"),
        check_name(message.protocol, "a protocol"),
        check_name(message.instance, "an instance"),
    )
    async with context.identity_lock(message.identity):
        identity = context.store.usable_identity(message.identity)
        record = context.store.binding(*names)
        if message.revoke:
            count = await asyncio.to_thread(context.worker_tokens.remove, *names)
            context.workers_changed.set()  # also if the network process cannot be told now
            await announce_workers(context)
            return WorkerTokenReply(bytes(identity.key), revoked=count)
        listener = await announce_workers(context)
        if not record.program:
            problem = "the daemon serves it. Only what was added with add-protocol --program has workers"
        elif not listener.address:
            problem = listener.problem or (
                "the daemon does not listen for them. Set where, and start it again: "
                "fastn-p2p config set worker.listen HOST:PORT"
            )
        else:
            problem = ""
        if problem:
            raise NotForWorkers(identity=names[0], protocol=names[1], instance=names[2], reason=problem)
        secret = secrets.token_bytes(SECRET_BYTES)
        await asyncio.to_thread(context.worker_tokens.add, names, token_hash(secret))
        context.workers_changed.set()
        await announce_workers(context)
        return WorkerTokenReply(bytes(identity.key), secret, listener.fingerprint, listener.address)
