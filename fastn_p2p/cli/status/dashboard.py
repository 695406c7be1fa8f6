"""Layout of a ``Status`` for a terminal: tables from 76 columns, ``narrow_dashboard`` below.

Values that people copy (names, ID52s, addresses) are folded if they are too long, never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fastn_p2p_client.ipc.messages import (
    BindingStatus,
    ConnectionStatus,
    IdentityStatus,
    PeerInfo,
    ProcessStatus,
    Status,
)
from fastn_p2p_client.plain_text import plain

from ...console.formatting import format_count, format_duration, format_latency, format_memory
from .narrow_dashboard import (
    ago,
    contacts,
    narrow_lines,
    published,
    replicas,
    revoked,
    sandboxes,
    servers,
    short,
    transport,
    vault,
)

_COLOURS: Final = {
    "ready": "green",
    "online": "green",
    "serving": "green",
    "direct": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "backoff": "yellow",
    "relayed": "yellow",
    "failed": "bold red",
}
MOST_ROWS: Final = 100
"""Processes, identities, peers and connections that are shown, of each. More make a terminal slow."""
NARROW: Final = 76
"""Columns that tables need. A narrower terminal gets ``narrow_dashboard``."""
_WAITING: Final = "waiting for a program"
"""State of a binding that a program must serve while no program does."""


def render_text(status: Status, *, partial: bool = False, width: int | None = None, colour: bool = False) -> str:
    """Return the dashboard as text, ``width`` columns wide (None: as wide as the terminal)."""
    console = Console(width=width, force_terminal=colour, highlight=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(dashboard(status, partial=partial, width=console.width))
    return "\n".join(map(str.rstrip, capture.get().splitlines()))


def dashboard(status: Status, *, partial: bool = False, width: int = 80) -> RenderableType:
    """Return the layout of ``status``. With ``partial`` only processes and warnings are known and shown."""
    if width < NARROW:
        lines = list(narrow_lines(status, partial=partial, most=MOST_ROWS))
        for line in lines:
            if line.no_wrap is None:
                line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)
    parts: list[RenderableType] = [_heading(status)]
    if status.warnings:
        parts += [_title("Warnings", "bold yellow"), _lines(status.warnings, "yellow")]
    parts += [_title("Processes"), _processes(status.processes[:MOST_ROWS])]
    parts += _rest(status.processes, status.processes_total)
    if partial:
        return Group(*parts)
    parts.append(_title("Identities"))
    if not status.identities:
        parts.append(_hint("none. Create one: `fastn-p2p create-identity NAME`"))
    elif status.identities_total > MOST_ROWS:
        online = f"{status.online_total:,} online, {status.asleep_total:,} of them asleep"
        parts.append(_hint(f"{status.identities_total:,} in all, {online}"))
    known = bool(status.endpoint)
    parts += [_identity(identity, known, width < 100) for identity in status.identities[:MOST_ROWS]]
    parts += _rest(status.identities, status.identities_total, "fastn-p2p identity list")
    if not known:
        unknown = _hint("unknown while the network process does not answer")
        return Group(*parts, _title("Peers and connections"), unknown)
    parts.append(_title("Peers"))
    if status.peers:
        parts.append(_peers(status.peers[:MOST_ROWS]))
        parts += _rest(status.peers, status.peers_total, "fastn-p2p peer list")
    else:
        parts.append(_hint("none. Add one: `fastn-p2p peer add TICKET --name NAME`"))
    parts += [_indented(Text(words, "yellow")) for words in contacts(status)]
    parts.append(_title("Connections"))
    parts.append(_connections(status) if status.connections else _hint("none"))
    parts += _rest(status.connections, status.connections_total)
    return Group(*parts)


def _rest(shown: Sequence[object], total: int, command: str = "fastn-p2p status --json") -> list[RenderableType]:
    """Return a line that counts the entries that are not shown and names the command that lists them."""
    rest = max(total, len(shown)) - min(len(shown), MOST_ROWS)
    return [_hint(f"and {rest:,} more: `{command}`")] if rest > 0 else []


# ── parts ────────────────────────────────────────────────────────────────────────────────────────


def _heading(status: Status) -> RenderableType:
    first = Text.assemble(
        ("fastn-p2p", "bold"),
        f" {plain(status.version)}" if status.version else "",
        f"   up {format_duration(status.uptime_ms)}" if status.uptime_ms else "",
        f"   network: {plain(status.network_mode)}" if status.network_mode else "",
        f"   {format_count(status.clients, 'program')} connected" if status.clients else "",
    )
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("home", plain(status.home))
    if status.endpoint:
        facts.add_row("endpoint", plain(status.endpoint))
    if words := transport(status):
        facts.add_row("transport key", plain(words))
    if status.addresses:
        facts.add_row("listens at", plain("  ".join(status.addresses)))
    for label, value in [*servers(status), *vault(status), *sandboxes(status)]:
        facts.add_row(label, plain(value))
    return Group(first, Padding(facts, (0, 0, 0, 2)))


def _processes(processes: Sequence[ProcessStatus]) -> RenderableType:
    table = _table("name", "state", ">pid", ">uptime", ">restarts", ">memory", ">cpu")
    for each in processes:
        table.add_row(
            plain(each.name),
            _state(each.state),
            str(each.pid or "-"),
            format_duration(each.uptime_ms) if each.uptime_ms else "-",
            Text(str(each.restarts), "yellow" if each.restarts else ""),
            format_memory(each.memory) if each.memory else "-",
            f"{each.cpu_ms / 1000:.1f} s" if each.cpu_ms else "-",
        )
    return _indented(table)


def _identity(identity: IdentityStatus, known: bool, tight: bool) -> RenderableType:
    head = Table.grid(padding=(0, 2, 0, 0))
    head.add_column(overflow="fold", style="bold")
    head.add_column(no_wrap=True)
    head.add_column(no_wrap=True)
    head.add_row(plain(identity.name), _presence(identity, known), plain(identity.id52))
    parts: list[RenderableType] = [head]
    if identity.delegation_expires_ms is not None and identity.delegation_expires_ms < 3_600_000:
        left = format_duration(max(0, identity.delegation_expires_ms))
        parts.append(Text(f"delegation expires in {left}", "yellow"))
    if words := published(identity):
        parts.append(_hint(plain(words)))
    parts += [_hint(plain(words)) for words in replicas(identity)]
    if identity.bindings:
        parts.append(Padding(_bindings(identity.bindings, tight), (0, 0, 0, 2)))
        parts += [Padding(_remark(each), (0, 0, 0, 2)) for each in identity.bindings if _has_remark(each, identity)]
    else:
        add = f"fastn-p2p add-protocol {plain(identity.name)} --protocol Echo"
        parts.append(_hint(f"no protocols. Add one: `{add}`"))
    return Padding(Group(*parts), (0, 0, 0, 2))


def _has_remark(binding: BindingStatus, identity: IdentityStatus) -> bool:
    return binding.state != "serving" and (identity.online or binding.state != "offline")


def _remark(binding: BindingStatus) -> Text:
    """Return the reason for which a binding is not served."""
    colour = {"stopped": "dim", _WAITING: "yellow"}.get(binding.state, "red")
    return Text(f"{plain(binding.protocol)} ({plain(binding.instance)}): {plain(binding.state)}", colour)


def _presence(identity: IdentityStatus, known: bool) -> Text:
    """Return the state of an identity. ``known``: the network process answers, so its list is complete."""
    if identity.revoked:
        return Text(f"revoked {plain(identity.revoked[:10])}", "bold red")
    if identity.asleep and identity.wanted:
        return Text("asleep", "green")
    if identity.online:
        return Text("online" if identity.wanted else "stopping", "green" if identity.wanted else "yellow")
    if identity.wanted:
        return Text("not up", "bold red") if known else Text("?", "yellow")
    return Text("offline", "dim")


def _bindings(bindings: Sequence[BindingStatus], tight: bool) -> Table:
    """Return the table of bindings. It has a column for programs if programs serve any of them."""
    columns = ["protocol", "instance", "access", ">calls", ">errors", ">busy", ">p50/p99 ms", ">streams"]
    by_programs = any(each.programs or each.state == _WAITING for each in bindings)
    table = _table(*columns, *([">programs"] if by_programs else []))
    if tight:  # fold the access list, so that no other column is folded
        table.columns[2].max_width = len("everyone")
    table.columns[0].min_width = min(max(len(each.protocol) for each in bindings), 16)
    for each in bindings:
        programs = str(each.programs) if each.programs or each.state == _WAITING else "-"
        table.add_row(
            plain(each.protocol),
            plain(each.instance),
            plain(" ".join(map(short, each.access))),
            str(each.calls),
            Text(str(each.errors), "red" if each.errors else ""),
            str(each.in_flight),
            "-" if each.p50_ms is None else f"{format_latency(each.p50_ms)}/{format_latency(each.p99_ms)}",
            f"{each.sessions}/{each.opened}" if each.opened else "-",
            *([programs] if by_programs else []),
        )
    return table


def _peers(peers: Sequence[PeerInfo]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    for each in peers:
        endpoints = format_count(each.endpoints, "endpoint") if each.endpoints else "key only"
        table.add_row(plain(each.name), plain(each.id52), endpoints)
        if each.revoked:
            table.add_row("", Text(plain(revoked(each)), "red", overflow="fold", no_wrap=False))
        elif each.reach:
            table.add_row("", Text(ago(each.reach, each.seen_ms), "green" if each.reach == "connected" else "yellow"))
    return _indented(table)


def _connections(status: Status) -> RenderableType:
    names = {each.id52: each.name for each in status.peers}
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold", style="bold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in status.connections[:MOST_ROWS]:
        rtt = "" if each.rtt_ms is None else f", rtt {each.rtt_ms} ms"
        table.add_row(_peers_text(each, names), _state(each.path), f"{plain(each.address)}{rtt}")
        table.add_row("", Text(f"up {format_duration(each.age_ms)}", "dim"), Text(_traffic(each), "dim"))
    return _indented(table)


def _traffic(connection: ConnectionStatus) -> str:
    return (
        f"{format_count(connection.streams, 'stream')}, {connection.in_flight} in flight, "
        f"{format_memory(connection.sent)} out, {format_memory(connection.received)} in"
    )


def _peers_text(connection: ConnectionStatus, names: dict[str, str]) -> str:
    who = ", ".join(short(names.get(each, each)) for each in connection.identities)
    more = connection.identities_total - len(connection.identities)
    if more > 0:
        who += f", and {more} more"
    return f"{'→' if connection.outgoing else '←'} {plain(who) if who else short(connection.endpoint)}"


# ── elements ─────────────────────────────────────────────────────────────────────────────────────


def _table(*columns: str) -> Table:
    """Return an empty table without lines. ``>`` before a column's title aligns it to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=right)
    return table


def _title(text: str, style: str = "bold") -> Text:
    return Text(f"\n{text}", style)


def _hint(text: str) -> RenderableType:
    return _indented(Text(text, "dim"))


def _lines(lines: Iterable[str], style: str) -> RenderableType:
    return _indented(Text("\n".join(map(plain, lines)), style))


def _indented(what: RenderableType) -> RenderableType:
    return Padding(what, (0, 0, 0, 2))


def _state(state: str) -> Text:
    return Text(plain(state), _COLOURS.get(state, ""))
