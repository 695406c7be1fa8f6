"""Command for the daemon's settings. The network process reads those that change while it runs."""

from __future__ import annotations

from fastn_p2p_client.ipc.messages import ReloadSettings, SettingsReply

from ...network.admin_messages import ReloadNetworkSettings
from ..context import GatewayContext


async def reload_settings(context: GatewayContext, _message: ReloadSettings, _: bytes) -> SettingsReply:
    reply = await context.network.request(ReloadNetworkSettings(), SettingsReply)
    if reply.log_level:
        await context.supervisor.change_log_level(reply.log_level)
    return reply
