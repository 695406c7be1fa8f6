"""JSON Schema of what commands print with ``--json``. Only ``fastn-p2p schema`` needs it and all the records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Final

import msgspec

from fastn_p2p_actors.pairing.result import PairedPeer
from fastn_p2p_client.chat.messages import Event as ChatEvent
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.mail.messages import MailAccepted, MailSummary, OutboxEntry

from ..protocols.files.events import Event as TransferEvent
from ..protocols.files.messages import Entry, OfferReply
from ..protocols.files.progress import Ended
from . import json_records as r
from .command_groups import PROGRAM_GROUP, CommandGroup
from .log_reader import LogRecord
from .netcheck.check import Check

_PACKAGE: Final = "fastn_p2p.cli.commands."

RESULTS: Final[dict[str, tuple[Any, ...]]] = {
    "status": (m.Status,),
    "health": (r.HealthRecord,),
    "service.install": (r.InstalledService,),
    "service.remove": (r.RemovedService,),
    "service.status": (r.ServiceRecord,),
    "doctor": (Check,),
    "bug_report": (r.WrittenFile,),
    "metrics": (r.MetricRecord,),
    "schema": (dict[str, Any],),
    "config.show": (dict[str, r.SettingRecord],),
    "config.get": (Any,),
    "config.set": (r.ChangedSetting,),
    "config.path": (str,),
    "create_identity": (m.IdentityInfo,),
    "identity.revoke": (m.IdentityInfo,),
    "delete_identity": (r.NameRecord,),
    "list_identities": (list[m.IdentityInfo],),
    "set_identity": (m.IdentityInfo,),
    "identity_online": (m.IdentityInfo,),
    "identity_offline": (m.IdentityInfo,),
    "add_protocol": (r.BindingRecord,),
    "remove_protocol": (r.BindingRecord,),
    "worker_token": (r.WorkerTokenRecord, r.RevokedTokens),
    "set_protocol": (r.BindingStateRecord,),
    "protocols": (list[m.ProtocolInfo],),
    "new_protocol": (r.NewProtocol,),
    "check": (r.BindingStateRecord,),
    "reload": (r.BindingStateRecord,),
    "start": (r.BindingStateRecord,),
    "stop": (r.BindingStateRecord,),
    "call": (Any,),
    "forward": (r.ListenerAddress,),
    "expose": (r.ExposedService,),
    "open": (r.OpenedService,),
    "chat": (ChatEvent,),
    "ticket": (r.TicketRecord,),
    "pair": (r.PairingWords, PairedPeer),
    "invite.create": (r.InvitationTicket,),
    "invite.list": (list[m.InvitationInfo],),
    "invite.revoke": (m.InvitationInfo,),
    "replica.invite": (r.PairingWords, r.AddedReplica),
    "replica.join": (r.JoinedRecord,),
    "replica.list": (list[m.ReplicaInfo],),
    "replica.promote": (m.HomeInfo,),
    "replica.adopt": (list[m.ReplicaInfo],),
    "replica.remove": (r.EndedReplica,),
    "replica.end": (r.NameRecord,),
    "peer.add": (r.AddedPeer,),
    "peer.list": (list[m.PeerInfo],),
    "peer.rename": (m.PeerInfo,),
    "peer.remove": (r.RemovedPeer,),
    "peer.pending": (list[m.PendingPeer], m.PendingPeer),
    "peer.accept": (m.PeerInfo,),
    "peer.accept_successor": (m.PeerInfo,),
    "peer.block": (r.NamedPeer,),
    "peer.unblock": (r.NamedPeer,),
    "peer.blocked": (list[m.BlockedInfo],),
    "peer.group.create": (r.AddedMembers,),
    "peer.group.add": (r.AddedMembers,),
    "peer.group.remove": (r.RemovedMembers,),
    "peer.group.list": (list[m.GroupInfo],),
    "peer.group.delete": (r.GroupRecord,),
    "access": (list[m.BindingAccess],),
    "vault.status": (r.VaultRecord,),
    "vault.set_passphrase": (r.VaultRecord,),
    "vault.lock": (r.VaultRecord,),
    "vault.unlock": (r.VaultRecord,),
    "vault.add_slot": (r.AddedSlot,),
    "vault.remove_slot": (r.VaultRecord,),
    "vault.recovery_code": (r.AddedSlot,),
    "backup.create": (r.CreatedBackup,),
    "backup.show": (r.ShownBackup,),
    "backup.restore": (r.RestoredBackup,),
    "transport.rotate": (r.TransportRecord,),
    "log.audit": (r.AuditLine,),
    "logs": (LogRecord,),
    "ping": (r.PingAnswer, r.PingSummary),
    "explain": (m.PeerTrace,),
    "netcheck": (Check,),
    "files.ls": (Entry,),
    "files.get": (TransferEvent | Ended,),
    "files.put": (TransferEvent | Ended,),
    "files.offers": (r.WholeOffer,),
    "files.accept": (r.AcceptedOffer,),
    "files.reject": (OfferReply,),
    "mail.send": (MailAccepted,),
    "mail.list": (MailSummary,),
    "mail.read": (r.WholeMail,),
    "mail.delete": (r.DeletedMails,),
    "mail.outbox": (OutboxEntry,),
    "mail.retry": (r.RetriedMails,),
    "relay": (r.RelayAddress,),
}
"""Module of a command → types of the lines that it prints if it succeeds. The other commands print no JSON then."""


def result_types(module: str) -> tuple[Any, ...]:
    """Return the types of all lines that the command of a module can print, the error as the last one."""
    return (*RESULTS.get(module.removeprefix(_PACKAGE), ()), r.ErrorLine)


def schemas(words: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the schemas of the commands whose names begin with these words, by name; of all without words."""
    return dict(_schemas(PROGRAM_GROUP, tuple(words), ()))


def _schemas(
    group: CommandGroup, words: tuple[str, ...], path: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, module in group.modules.items():
        if words and name != words[0]:
            continue
        loaded, here = import_module(module), (*path, name)
        if hasattr(loaded, "GROUP"):
            yield from _schemas(loaded.GROUP, words[1:], here)
        elif not words[1:]:
            yield " ".join(here), _schema(" ".join(here), result_types(module))


def _schema(command: str, types: tuple[Any, ...]) -> dict[str, Any]:
    found, definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A line of: fastn-p2p {command} --json",
        "anyOf": list(found),
        "$defs": definitions,
    }
