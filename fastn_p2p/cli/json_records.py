"""Records that commands print with ``--json`` and no message has. ``json_schema`` says which command prints which."""

from __future__ import annotations

from typing import Any

from fastn_p2p_client.ipc.messages import IdentityInfo, InvitationInfo, PeerInfo, Record
from fastn_p2p_client.mail.messages import MailSummary

from ..protocols.files.messages import OfferedEntry, OfferSummary


class ErrorRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """An error: its stable code, one line for people, the exit code, and details by name."""

    code: str
    message: str
    exit: int
    fields: dict[str, Any]
    request_id: str = ""
    """Id of the call or session that has failed; left out where there is none."""


class ErrorLine(Record, frozen=True, kw_only=True):
    """The last line of a command that has failed."""

    error: ErrorRecord


class BindingRecord(Record, frozen=True, kw_only=True):
    """A binding that was added or removed."""

    identity: str
    protocol: str
    instance: str


class BindingStateRecord(BindingRecord, frozen=True, kw_only=True):
    """A binding and its state."""

    state: str


class ExposedService(BindingRecord, frozen=True, kw_only=True):
    """A local service that peers can open."""

    target: str


class SettingRecord(Record, frozen=True, kw_only=True):
    """Value of a setting, and where it comes from."""

    value: Any
    source: str


class ChangedSetting(Record, frozen=True, kw_only=True):
    """A setting that was changed, and when that takes effect."""

    key: str
    value: Any
    effect: str


class NameRecord(Record, frozen=True, kw_only=True):
    """Name of an identity that was deleted."""

    name: str


class NewProtocol(Record, frozen=True, kw_only=True):
    """A protocol that was written from the template, and the command that installs it."""

    directory: str
    protocol: str
    install: str


class ListenerAddress(Record, frozen=True, kw_only=True):
    """Address at which a forwarded service listens."""

    address: str


class OpenedService(Record, frozen=True, kw_only=True):
    """Addresses of a peer's web service on this machine."""

    url: str
    browser_url: str


class TicketRecord(Record, frozen=True, kw_only=True):
    """Ticket of an identity."""

    ticket: str
    expires: int
    this_machine_only: bool
    relays: list[str]
    addresses: list[str]


class WorkerTokenRecord(Record, frozen=True, kw_only=True):
    """Token of a worker."""

    identity: str
    protocol: str
    instance: str
    token: str


class RevokedTokens(Record, frozen=True, kw_only=True):
    """Binding whose tokens of workers were revoked."""

    identity: str
    protocol: str
    instance: str
    revoked: int


class PairingWords(Record, frozen=True, kw_only=True):
    """Words that the other side types."""

    words: str
    expires: int


class InvitationTicket(InvitationInfo, frozen=True, kw_only=True):
    """An invitation, and the ticket that redeems it."""

    ticket: str


class AddedReplica(Record, frozen=True, kw_only=True):
    """A daemon that serves an identity from now on."""

    identity: str
    replica: str
    fingerprint: str


class JoinedRecord(Record, frozen=True, kw_only=True):
    """An identity that is a replica here, and why it is not online yet."""

    identity: str
    id52: str
    fingerprint: str
    problem: str


class EndedReplica(Record, frozen=True, kw_only=True):
    """A replica that was removed."""

    identity: str
    replica: str
    now: bool


class AddedPeer(PeerInfo, frozen=True, kw_only=True):
    """A peer in the address book, its earlier petname, and the bindings that it was let in to."""

    renamed_from: str
    let_in_to: list[str]


class RemovedPeer(Record, frozen=True, kw_only=True):
    """A peer that was removed, and the groups that it was in."""

    name: str
    groups: list[str]


class NamedPeer(Record, frozen=True, kw_only=True):
    """The peer of the command line."""

    peer: str


class GroupRecord(Record, frozen=True, kw_only=True):
    """A group that was deleted."""

    group: str


class AddedMembers(GroupRecord, frozen=True, kw_only=True):
    """A group and the peers that were added."""

    added: list[str]


class RemovedMembers(GroupRecord, frozen=True, kw_only=True):
    """A group and the peers that were removed."""

    removed: list[str]


class SlotRecord(Record, frozen=True, kw_only=True):
    """A way to unlock the vault."""

    name: str
    kind: str
    created: str


class AddedSlot(SlotRecord, frozen=True, kw_only=True):
    """A new way to unlock the vault, with its secret if there is one to keep."""

    secret: str = ""


class VaultRecord(Record, frozen=True, kw_only=True):
    """State of the vault."""

    encrypted: bool
    locked: bool
    locks_at: int
    unlock: str
    slots: list[SlotRecord]
    wait: int
    identities: int


class CreatedBackup(Record, frozen=True, kw_only=True):
    """A backup that was written."""

    file: str
    identities: int
    problems: list[str]


class BackupBinding(Record, frozen=True, kw_only=True):
    """A binding in a backup."""

    protocol: str
    instance: str
    allow: list[str]
    permissions: list[str]


class BackupReplica(Record, frozen=True, kw_only=True):
    """A replica in a backup."""

    name: str
    endpoint: str
    homes: list[str]


class BackupIdentity(Record, frozen=True, kw_only=True):
    """An identity in a backup."""

    name: str
    id52: str
    online: bool
    revoked: str
    replicas: list[BackupReplica]
    protocols: list[BackupBinding]


class BackupPeer(Record, frozen=True, kw_only=True):
    """A peer in a backup."""

    name: str
    id52: str


class BackupInvitation(Record, frozen=True, kw_only=True):
    """An invitation in a backup."""

    id: str
    identity: str
    bindings: list[str]
    bearers: list[str]


class ShownBackup(Record, frozen=True, kw_only=True):
    """Contents of a backup."""

    created: str
    host: str
    identities: list[BackupIdentity]
    peers: list[BackupPeer]
    groups: list[str]
    blocked: list[str]
    invitations: list[BackupInvitation]


class RestoredBackup(Record, frozen=True, kw_only=True):
    """Outcome of a restore."""

    identities: list[IdentityInfo]
    skipped: list[str]
    peers: int
    permissions: dict[str, list[str]]
    replicas: dict[str, list[str]]
    owners: dict[str, str]
    problems: list[str]


class TransportRecord(Record, frozen=True, kw_only=True):
    """Transport key in use."""

    endpoint: str
    epoch: int
    since: str


class AuditLine(Record, frozen=True, kw_only=True):
    """A line of the audit log. Each event has further fields of its own."""

    time: str
    actor: str
    event: str


class PingAnswer(Record, frozen=True, kw_only=True):
    """Answer to one ping."""

    id52: str
    path: str
    address: str
    rtt_ms: float


class PingCounts(Record, frozen=True, kw_only=True):
    """Number and times of all pings; times are null if there was no answer."""

    sent: int
    answered: int
    path: str
    min_ms: float | None
    mean_ms: float | None
    max_ms: float | None


class PingSummary(Record, frozen=True, kw_only=True):
    """The last line of ``ping``."""

    summary: PingCounts


class WholeOffer(OfferSummary, frozen=True, kw_only=True):
    """An offer with all its entries."""

    entries: list[OfferedEntry]


class AcceptedOffer(Record, frozen=True, kw_only=True):
    """An offer that was accepted, and the entries that must be accepted by name."""

    offer: str
    state: str
    left_out: list[str]


class AttachmentRecord(Record, frozen=True, kw_only=True):
    """Attachment of a mail, without its content."""

    name: str
    size: int


class WholeMail(Record, frozen=True, kw_only=True):
    """A mail in the inbox."""

    summary: MailSummary
    body: str
    attachments: list[AttachmentRecord]


class DeletedMails(Record, frozen=True, kw_only=True):
    """Numbers of mails that were deleted, and that do not exist."""

    deleted: int
    unknown: int


class RetriedMails(Record, frozen=True, kw_only=True):
    """Numbers of mails that are sent again, and that neither wait nor have bounced."""

    retrying: int
    unknown: int


class RelayAddress(Record, frozen=True, kw_only=True):
    """A service of the relay, and its URL."""

    service: str
    url: str


class HealthProblemRecord(Record, frozen=True, kw_only=True):
    """A part of the daemon that is not well."""

    part: str
    code: str
    text: str


class HealthRecord(Record, frozen=True, kw_only=True):
    """Health of the daemon."""

    ok: bool
    problems: list[HealthProblemRecord]


class InstalledService(Record, frozen=True, kw_only=True):
    """Paths of units that were written, and the commands that come next."""

    changed: list[str]
    next: list[str]


class RemovedService(Record, frozen=True, kw_only=True):
    """Paths of units that were removed."""

    removed: list[str]


class ServiceRecord(Record, frozen=True, kw_only=True):
    """State of the service: of its units by path, and as systemd has it."""

    service: str
    units: dict[str, str]
    enabled: bool
    active: str


class WrittenFile(Record, frozen=True, kw_only=True):
    """A file that was written."""

    file: str


class MetricRecord(Record, frozen=True, kw_only=True):
    """A metric; a value that is no number is null."""

    name: str
    labels: dict[str, str]
    value: float | None
