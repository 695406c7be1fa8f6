"""Layout of a ``Status`` for narrow terminals: one fact per line, cut with … if it is too long."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.text import Text

from fastn_p2p_actors.runtime.sandbox.states import CLOSED, SWITCHED_OFF
from fastn_p2p_client.ipc.messages import (
    BindingStatus,
    ConnectionStatus,
    IdentityStatus,
    PeerInfo,
    ProcessStatus,
    Status,
)
from fastn_p2p_client.plain_text import plain

from ...console.formatting import format_count, format_duration, format_memory, utc_minute
from ..vault_text import vault_state

_ID52 = 52


def narrow_lines(status: Status, *, partial: bool, most: int) -> Iterator[Text]:
    """Yield the lines.

    Args:
        partial: only processes and warnings are known.
        most: the number of entries of each list to show.
    """
    up = f", up {format_duration(status.uptime_ms)}" if status.uptime_ms else ""
    yield Text.assemble(("fastn-p2p", "bold"), f" {plain(status.version)}{up}".rstrip())
    facts = [("network", status.network_mode), ("home", status.home), ("endpoint", status.endpoint)]
    facts += [("transport key", transport(status))]
    facts += [("programs", str(status.clients) if status.clients else "")]
    facts += [("listens at", address) for address in status.addresses]
    facts += servers(status) + vault(status) + sandboxes(status)
    yield from (Text.assemble((f"  {name}  ", "dim"), plain(value)) for name, value in facts if value)
    if status.warnings:
        yield from _title("Warnings", "bold yellow")
        yield from (Text(f"  {plain(words)}", "yellow", no_wrap=False, overflow="fold") for words in status.warnings)
    yield from _title("Processes")
    yield from map(_process, status.processes[:most])
    if partial:
        return
    yield from _title("Identities")
    for identity in status.identities[:most]:
        state = (
            "asleep" if identity.asleep else "online" if identity.online else "not up" if identity.wanted else "offline"
        )
        if identity.revoked:
            state = f"revoked {plain(identity.revoked[:10])}"
        yield Text.assemble(f"  {plain(identity.name)}", (f"  {state}", "green" if identity.online else "dim"))
        yield Text(f"    {identity.id52}", "dim")
        if words := published(identity):
            yield Text(f"    {plain(words)}", "dim", no_wrap=False, overflow="fold")
        for words in replicas(identity):
            yield Text(f"    {plain(words)}", "dim", no_wrap=False, overflow="fold")
        yield from map(_binding, identity.bindings)
    if not status.identities:
        yield Text("  none", "dim")
    if not status.endpoint:
        yield Text("  peers and connections: unknown", "dim")
        return
    yield from _title("Peers")
    if not status.peers:
        yield Text("  none", "dim")
    for peer in status.peers[:most]:
        yield Text.assemble(f"  {plain(peer.name)}", (f"  {ago(peer.reach, peer.seen_ms)}".rstrip(), "dim"))
        yield Text(f"    {peer.id52}", "dim")
        if peer.revoked:
            yield Text(f"    {plain(revoked(peer))}", "red", no_wrap=False, overflow="fold")
    yield from (Text(f"  {words}", "yellow", no_wrap=False, overflow="fold") for words in contacts(status))
    yield from _title("Connections")
    if not status.connections:
        yield Text("  none", "dim")
    names = {each.id52: each.name for each in status.peers}
    for connection in status.connections[:most]:
        yield from _connection(connection, names)
    counts = (
        (len(status.processes), status.processes_total),
        (len(status.identities), status.identities_total),
        (len(status.peers), status.peers_total),
        (len(status.connections), status.connections_total),
    )
    rest = sum(max(total, given) - min(given, most) for given, total in counts)
    if rest > 0:
        yield Text(f"and {rest:,} more: `fastn-p2p status --json`", "dim")


def _title(text: str, style: str = "bold") -> Iterator[Text]:
    yield Text("")
    yield Text(text, style)


def _process(each: ProcessStatus) -> Text:
    again = f", {each.restarts} restarts" if each.restarts else ""
    up = f", up {format_duration(each.uptime_ms)}" if each.uptime_ms else ""
    return Text(f"  {plain(each.name)}: {plain(each.state)}{up}{again}")


def _binding(each: BindingStatus) -> Text:
    state = "" if each.state == "serving" else f", {plain(each.state)}"
    errors = f", {each.errors} errors" if each.errors else ""
    where = plain(each.protocol) if each.instance == "default" else f"{plain(each.protocol)}/{plain(each.instance)}"
    return Text(f"    {where}: {each.calls} calls{errors}{state}")


def _connection(each: ConnectionStatus, names: dict[str, str]) -> Iterator[Text]:
    who = ", ".join(short(names.get(name, name)) for name in each.identities) or short(each.endpoint)
    yield Text.assemble(f"  {'→' if each.outgoing else '←'} {plain(who)}", (f"  {plain(each.path)}", "dim"))
    yield Text(f"    {plain(each.address)}", "dim")
    rtt = "" if each.rtt_ms is None else f", rtt {each.rtt_ms} ms"
    yield Text(f"    up {format_duration(each.age_ms)}{rtt}", "dim")
    yield Text(f"    {format_memory(each.sent)} out, {format_memory(each.received)} in", "dim")


def servers(status: Status) -> list[tuple[str, str]]:
    """Return label and value of relays and directories. Empty without the network process and in other modes."""
    directories = ("directories", "  ".join(status.directories) or "none")
    if not status.endpoint or status.network_mode != "internet":
        return [directories] if status.directories else []
    if status.home_relay:
        others = len(status.relays) - 1
        relay = f"{status.home_relay} (connected)" + (f", {others} more known" if others > 0 else "")
    else:
        relay = f"not connected to {' or '.join(status.relays)}" if status.relays else "none"
    return [("relay", relay), directories]


def transport(status: Status) -> str:
    """Return words about the transport key; empty if it is the first one, or not known."""
    if status.transport_epoch <= 1:
        return ""
    return f"epoch {status.transport_epoch}, since {status.transport_since[:10]}"


def vault(status: Status) -> list[tuple[str, str]]:
    """Return label and value of the vault's state; empty if the vault does not answer."""
    lock = status.vault
    if lock is None:
        return []
    return [("vault", vault_state(encrypted=lock.encrypted, locked=lock.locked, until=lock.locks_at))]


def sandboxes(status: Status) -> list[tuple[str, str]]:
    """Return label and value of the state of the sandboxes; empty if no process has reported it."""
    states = {process.sandbox for process in status.processes if process.sandbox}
    if not states:
        return []
    if states == {SWITCHED_OFF}:
        return [("sandboxes", "off: limits.sandbox is false")]
    return [("sandboxes", "closed" if states == {CLOSED} else "open in part: see the warnings")]


def contacts(status: Status) -> list[str]:
    """Return lines that count strangers that were refused, blocked peers, and open invitations."""
    lines = []
    if status.pending:
        lines.append(f"{format_count(status.pending, 'stranger')} refused: `fastn-p2p peer pending`")
    if status.blocked:
        lines.append(f"{format_count(status.blocked, 'peer')} blocked: `fastn-p2p peer blocked`")
    if status.invitations:
        lines.append(f"{format_count(status.invitations, 'invitation')} open: `fastn-p2p invite list`")
    return lines


def revoked(peer: PeerInfo) -> str:
    """Return when a peer was revoked, and the command that accepts its successor."""
    step = f": `fastn-p2p peer accept-successor {peer.name}`" if peer.successor else ", no successor"
    return f"revoked {peer.revoked[:10]}{step}"


def replicas(identity: IdentityStatus) -> list[str]:
    """Return a line for each other daemon of an identity; the owner's, if this one is a replica."""
    now = time.time()
    lines = []
    for each in identity.replicas:
        left = f", delegation for {format_duration(int(max(0, each.until - now) * 1000))}" if each.until else ""
        role = "replica of" if each.joined else "replica"
        lines.append(f"{role} {each.name}: {each.state}{left}")
    return lines or ([f"replica of {identity.owner}"] if identity.owner else [])


def published(identity: IdentityStatus) -> str:
    """Return where the record of an online identity is published, and since when; empty if it is offline."""
    if not identity.online:
        return ""
    places = []
    for each in identity.publications:
        age = "never" if each.age_ms is None else f"{format_duration(each.age_ms)} ago"
        places.append(f"{each.place} {age}" + (f" ({each.problem})" if each.problem else ""))
    return f"{'published' if identity.listed else 'unlisted'}: {', '.join(places)}" if places else ""


def ago(reach: str, seen_ms: int) -> str:
    """Return ``unreachable, last seen 2026-01-31 12:00 UTC`` or another state; empty if never tried."""
    if reach != "unreachable":
        return plain(reach)
    if not seen_ms:
        return "unreachable, not seen since the daemon started"
    return f"unreachable, last seen {utc_minute(seen_ms / 1000)}"


def short(name: str) -> str:
    """Return a key (an ID52 or an endpoint) cut to six characters, and any other name unchanged."""
    return f"{name[:6]}…" if len(name) in {_ID52, 64} and name.isalnum() else name
