"""Servers that keep claims, for tests: a bucket of NATS, and a table of PostgreSQL, with the rights of the docs."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Final

from tests.support.nats_servers import NatsProcess
from tests.support.postgres_server import PostgresServer

__all__ = ["BUCKET", "ClaimServer", "DatabaseOfClaims", "NatsOfClaims", "nats_config", "write_accounts"]

BUCKET: Final = "claims"
_PAGE: Final = Path(__file__).parents[2] / "docs/postgres.md"
_ROLE: Final = "fastn_claims"


def nats_config(directory: Path) -> str:
    """Return the configuration of a server with JetStream. Its accounts have the rights that docs/workers.md gives."""
    claims = (
        f'"$KV.{BUCKET}.>", "$JS.API.STREAM.INFO.KV_{BUCKET}", "$JS.API.STREAM.CREATE.KV_{BUCKET}", '
        f'"$JS.API.STREAM.MSG.GET.KV_{BUCKET}"'
    )
    return f"""
jetstream {{ store_dir: "{directory}/store" }}
authorization {{ users = [
  {{ user: bridge, password: secret, permissions: {{
    publish: ["fastn-p2p.>", {claims}], subscribe: ["fastn-p2p.>", "_INBOX.>"] }} }}
  {{ user: worker, password: secret, permissions: {{ publish: "fastn-p2p.>", subscribe: "fastn-p2p.>" }} }}
  {{ user: program, password: secret, permissions: {{ publish: [{claims}], subscribe: "_INBOX.>" }} }}
] }}
"""


def write_accounts(directory: Path) -> None:
    """Write the credentials of each account into a file with its name."""
    for user in ("bridge", "worker", "program"):
        path = directory / user
        path.touch(mode=0o600)
        path.write_text(f'user = "{user}"\npassword = "secret"\n')


class ClaimServer:
    """Server that keeps claims.

    Attributes:
        url: of the store.
        of_workers: field ``claims`` in the config of workers that are served through ``nats_config``'s server.
    """

    url: str
    of_workers: str

    def stop(self) -> None:
        """End the server as a crash does."""
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the server."""
        raise NotImplementedError


class NatsOfClaims(ClaimServer):
    """Bucket that the daemon makes."""

    def __init__(self, nats: NatsProcess) -> None:
        self._nats = nats
        self.url = f"{nats.url}/{BUCKET}?credentials={nats.directory}/program"
        self.of_workers = BUCKET

    def stop(self) -> None:
        self._nats.kill()

    def start(self) -> None:
        self._nats.start()

    def send(self, number: signal.Signals) -> None:
        self._nats.send(number)


class DatabaseOfClaims(ClaimServer):
    """Table that the administrator has made, as docs/postgres.md says."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._postgres = postgres
        self.database = postgres.new_database()
        if not postgres.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{_ROLE}'"):
            postgres.execute(f"CREATE ROLE {_ROLE} LOGIN")
        found = re.search(r"```sql\n(CREATE SCHEMA fastn_claims.*?)```", _PAGE.read_text(), re.DOTALL)
        assert found is not None, "docs/postgres.md has the table of claims"
        postgres.execute(found[1], self.database)
        self.url = self.of_workers = postgres.url(self.database, _ROLE)

    def stop(self) -> None:
        self._postgres.stop()

    def start(self) -> None:
        self._postgres.start()

    def send(self, number: signal.Signals) -> None:
        self._postgres.send(number)
