"""Reports of events to the vault: in order, once, and bounded while the vault does not answer."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fastn_p2p_actors.vault import audit_reporter as module
from fastn_p2p_actors.vault.audit_reporter import AuditReporter
from fastn_p2p_actors.vault.messages import MAX_EVENT_FIELDS, MAX_EVENT_TEXT, RecordEvent, VaultRequest
from fastn_p2p_client.errors import DaemonBusy, Forbidden
from fastn_p2p_client.ipc.messages import encode

_decoder: msgspec.msgpack.Decoder[VaultRequest] = msgspec.msgpack.Decoder(VaultRequest)


class Vault:
    """Takes events unless it is away."""

    def __init__(self) -> None:
        self.events: list[RecordEvent] = []
        self.is_up = asyncio.Event()
        self.is_up.set()
        self.error: Exception | None = None

    async def take(self, event: RecordEvent) -> None:
        await self.is_up.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.events.append(event)


async def test_events_arrive_in_order_and_once() -> None:
    vault = Vault()
    reporter = AuditReporter(vault.take)
    for number in range(5):
        reporter.record("command", number=number)
    vault.error = DaemonBusy(actor="vault")
    await reporter.close(30)
    assert [event.fields["number"] for event in vault.events] == [0, 1, 2, 3, 4]


async def test_events_that_no_place_is_for_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    vault = Vault()
    vault.is_up.clear()
    reporter = AuditReporter(vault.take)
    for number in range(10):
        reporter.record("command", number=number)
        await asyncio.sleep(0)
    vault.is_up.set()
    await reporter.close(30)
    numbers = [event.fields["number"] for event in vault.events if event.event == "command"]
    lost = [event.fields["count"] for event in vault.events if event.event == "lost"]
    assert numbers[-3:] == [7, 8, 9]
    assert sum(map(int, map(str, lost))) + len(numbers) >= 10


async def test_event_that_the_vault_refuses_holds_up_no_other() -> None:
    vault = Vault()
    vault.error = Forbidden(role="gateway", request="RecordEvent")
    reporter = AuditReporter(vault.take)
    reporter.record("first")
    reporter.record("second")
    await reporter.close(30)
    assert [event.event for event in vault.events] == ["second"]


async def test_long_texts_are_cut_so_that_the_vault_takes_them() -> None:
    vault = Vault()
    reporter = AuditReporter(vault.take)
    many: dict[str, int] = {f"f{number}": number for number in range(2 * MAX_EVENT_FIELDS)}
    reporter.record("command", peer="x" * 10_000, allow=["y" * 10_000] * 100, **many)
    await reporter.close(30)
    (event,) = vault.events
    assert event.fields["peer"] == "x" * MAX_EVENT_TEXT
    assert _decoder.decode(encode(event)) == event


async def test_vault_that_is_away_does_not_delay_the_end() -> None:
    vault = Vault()
    vault.is_up.clear()
    reporter = AuditReporter(vault.take)
    reporter.record("command")
    await asyncio.wait_for(reporter.close(0.01), 20)
    assert vault.events == []
