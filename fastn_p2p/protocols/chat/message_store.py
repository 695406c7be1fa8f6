"""Messages of a binding in one database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from fastn_p2p_client.chat.messages import MAX_BATCH, ChatMessage, ConversationSummary, MessageState, OutgoingMessage
from fastn_p2p_client.errors import ApplicationError

from ...store import DatabaseSchema, Store, StoreConnection
from .config import ChatConfig

P = ParamSpec("P")
T = TypeVar("T")

_STATES: Final[tuple[MessageState, ...]] = ("kept", "delivered", "seen")
_KEPT, _DELIVERED, _SEEN = range(3)
_BATCH_BYTES: Final = 256 * 1024
"""Bytes of the texts in one delivery."""

_CREATE_TABLES: Final = """
CREATE TABLE peers (
    peer TEXT PRIMARY KEY,
    messages INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    peer TEXT NOT NULL,
    conversation TEXT NOT NULL,
    id TEXT NOT NULL,
    mine INTEGER NOT NULL,
    text TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    at INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    untold INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX by_id ON messages (peer, mine, id);
CREATE INDEX by_conversation ON messages (peer, conversation, seq);
CREATE INDEX waiting ON messages (peer, seq) WHERE mine = 1 AND mark = 0;
CREATE INDEX unseen ON messages (peer, conversation, seq) WHERE mine = 0 AND mark = 1;
CREATE INDEX untold ON messages (peer, conversation, seq) WHERE untold = 1;
"""
SCHEMA: Final = DatabaseSchema(1, _CREATE_TABLES)
NUMBERED_TABLES: Final = (("messages", "seq"),)
SMALL_TABLES: Final = ("peers",)
_COLUMNS: Final = "seq, id, mine, text, at, mark"


class DeliveryBatch(NamedTuple):
    """Next delivery to a peer: messages, or the ids of its messages that were read here."""

    conversation: str
    messages: list[OutgoingMessage]
    read: list[str]


class MessageStore:
    """Store of a binding. Runs methods of ``MessageTables`` in the threads of its database.

    Attributes:
        config: the limits; can be replaced at any time.

    Raises (each method):
        StorageFailed: the disk is full, for example.
        StorageUnavailable: PostgreSQL cannot be used at the moment.
        ApplicationError: from the method of ``MessageTables``.
    """

    def __init__(self, database: Store, config: ChatConfig) -> None:
        self.config = config
        self._database = database

    async def open(self) -> None:
        """Open the database, or create it.

        Raises:
            StorageDamaged, StorageFailed: the file is not a chat database, or cannot be read or written.
        """
        await self._database.open()

    async def close(self) -> None:
        """Finish the changes that were requested, then close the database."""
        await self._database.close()

    async def write(
        self, change: Callable[Concatenate[MessageTables, P], T], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Make a change in a transaction and return its result once it is on disk."""
        return await self._database.write(
            lambda connection: change(MessageTables(connection, self.config), *arguments, **options)
        )

    async def read(
        self, query: Callable[Concatenate[MessageTables, P], T], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Run a query and return its result. It sees every change that has returned."""
        return await self._database.read(
            lambda connection: query(MessageTables(connection, self.config), *arguments, **options)
        )


class MessageTables:
    """Changes and queries on the tables, inside a transaction of the caller.

    Raises (each method):
        sqlite3.Error, psycopg.Error: the disk is full, or the file is damaged.
    """

    def __init__(self, connection: StoreConnection, config: ChatConfig) -> None:
        self._db = connection
        self._config = config

    # ── changes ──────────────────────────────────────────────────────────────────────────────────

    def add_sent(self, peer: str, conversation: str, id: str, text: str, now: int) -> tuple[ChatMessage, bool]:
        """Store an own message. Return it, and whether it is new.

        Raises:
            ApplicationError: ``TooManyWaiting``, ``TooManyPeers``.
        """
        found = self._select("WHERE peer = ? AND mine = 1 AND id = ?", (peer, id))
        if found:
            return found[0], False
        waiting = self._one("SELECT count(*) FROM messages WHERE peer = ? AND mine = 1 AND mark = 0", peer)
        if waiting >= self._config.waiting:
            raise ApplicationError(
                "TooManyWaiting",
                f"limit reached: {waiting} messages wait for this peer. Send again when some are delivered",
                {"limit": self._config.waiting},
            )
        self._add_peer(peer)
        message = self._insert(peer, conversation, OutgoingMessage(id, text, now), mine=True, now=now)
        self._prune(peer, conversation)
        return message, True

    def add_received(
        self, peer: str, conversation: str, messages: Iterable[OutgoingMessage], now: int
    ) -> list[ChatMessage]:
        """Store messages of a peer. Return the new ones.

        Raises:
            ApplicationError: ``TooManyPeers``.
        """
        self._add_peer(peer)
        known = "SELECT count(*) FROM messages WHERE peer = ? AND mine = 0 AND id = ?"
        added = [
            self._insert(peer, conversation, each, mine=False, now=now)
            for each in messages
            if not self._one(known, peer, each.id)
        ]
        self._prune(peer, conversation)
        return added

    def mark_delivered(self, peer: str, ids: Iterable[str]) -> list[str]:
        """Mark own messages that the peer has. Return the ids that this changed."""
        known = list(ids)
        changed = self._mark("peer = ? AND mine = 1 AND mark < ?", peer, known, _DELIVERED)
        for conversation in self._conversations(peer, known):
            self._prune(peer, conversation)  # waiting messages could not be deleted before
        return changed

    def mark_read_by_peer(self, peer: str, conversation: str, ids: Iterable[str]) -> list[str]:
        """Mark own messages that the peer has read. Return the ids that this changed."""
        return self._mark("peer = ? AND mine = 1 AND mark < ? AND conversation = ?", peer, ids, _SEEN, conversation)

    def mark_read_here(self, peer: str, conversation: str, seq: int) -> bool:
        """Mark the peer's messages up to ``seq`` as read. Return whether there are new receipts to send."""
        return (
            self._db.execute(
                "UPDATE messages SET mark = ?, untold = 1"
                " WHERE peer = ? AND conversation = ? AND seq <= ? AND mine = 0 AND mark = 1",
                (_SEEN, peer, conversation, seq),
            ).rowcount
            > 0
        )

    def receipts_sent(self, peer: str, ids: Iterable[str]) -> None:
        """Note that the peer has the receipts for these messages."""
        self._db.executemany(
            "UPDATE messages SET untold = 0 WHERE peer = ? AND mine = 0 AND id = ?", [(peer, id) for id in ids]
        )

    def prune_all(self) -> None:
        """Delete messages above the limits of the config."""
        for peer, conversation in self._db.execute("SELECT DISTINCT peer, conversation FROM messages").fetchall():
            self._prune(peer, conversation)

    # ── queries ──────────────────────────────────────────────────────────────────────────────────

    def history(self, peer: str, conversation: str, before: int | None, limit: int) -> list[ChatMessage]:
        """Return the last messages, or the last ones before the message with seq ``before``; oldest first."""
        end = (1 << 62) if before is None else before
        messages = self._select(
            "WHERE peer = ? AND conversation = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
            (peer, conversation, end, limit),
        )
        return messages[::-1]

    def conversations(self) -> list[ConversationSummary]:
        """Return all conversations, the latest first."""
        rows = self._db.execute(
            "SELECT peer, conversation, count(*), count(*) FILTER (WHERE mine = 0 AND mark = 1),"
            " count(*) FILTER (WHERE mine = 1 AND mark = 0), max(at)"
            " FROM messages GROUP BY peer, conversation ORDER BY max(seq) DESC LIMIT 10000"
        )
        return [ConversationSummary(*row) for row in rows]

    def waiting_peers(self) -> list[str]:
        """Return the peers for which a delivery waits."""
        rows = self._db.execute(
            "SELECT peer FROM messages WHERE mine = 1 AND mark = 0 UNION SELECT peer FROM messages WHERE untold = 1"
        )
        return [peer for (peer,) in rows]

    def next_batch(self, peer: str) -> DeliveryBatch | None:
        """Return the next delivery to a peer, of one conversation and in order; None if there is none."""
        rows = self._db.execute(
            "SELECT conversation, id, text, at, bytes FROM messages"
            " WHERE peer = ? AND mine = 1 AND mark = 0 ORDER BY seq LIMIT ?",
            (peer, MAX_BATCH),
        ).fetchall()
        if rows:
            conversation, size = rows[0][0], 0
            messages: list[OutgoingMessage] = []
            for name, id, text, at, bytes_ in rows:
                size += bytes_
                if name != conversation or (messages and size > _BATCH_BYTES):
                    break
                messages.append(OutgoingMessage(id, text, at))
            return DeliveryBatch(conversation, messages, [])
        receipts = self._db.execute(
            "SELECT conversation, id FROM messages WHERE peer = ? AND untold = 1 ORDER BY conversation, seq LIMIT ?",
            (peer, MAX_BATCH),
        ).fetchall()
        if not receipts:
            return None
        return DeliveryBatch(receipts[0][0], [], [id for name, id in receipts if name == receipts[0][0]])

    # ── internal ─────────────────────────────────────────────────────────────────────────────────

    def _one(self, query: str, *parameters: object) -> int:
        return int(self._db.execute(query, parameters).fetchone()[0])

    def _select(self, where: str, parameters: tuple[object, ...]) -> list[ChatMessage]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM messages {where}", parameters)  # noqa: S608 - constants
        return [ChatMessage(seq, id, bool(mine), text, at, _STATES[mark]) for seq, id, mine, text, at, mark in rows]

    def _add_peer(self, peer: str) -> None:
        if self._one("SELECT count(*) FROM peers WHERE peer = ?", peer):
            return
        if self._one("SELECT count(*) FROM peers") >= self._config.peers:
            raise ApplicationError(
                "TooManyPeers", "limit reached: no more conversations are stored here", {"limit": self._config.peers}
            )
        self._db.execute("INSERT INTO peers (peer) VALUES (?)", (peer,))

    def _insert(self, peer: str, conversation: str, sent: OutgoingMessage, *, mine: bool, now: int) -> ChatMessage:
        size, at, mark = len(sent.text.encode()), min(sent.at, now), _KEPT if mine else _DELIVERED
        (seq,) = self._db.execute(
            "INSERT INTO messages (peer, conversation, id, mine, text, bytes, at, mark)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq",
            (peer, conversation, sent.id, int(mine), sent.text, size, at, mark),
        ).fetchone()
        self._db.execute("UPDATE peers SET messages = messages + 1, bytes = bytes + ? WHERE peer = ?", (size, peer))
        return ChatMessage(seq, sent.id, mine, sent.text, at, _STATES[mark])

    def _conversations(self, peer: str, ids: Iterable[str]) -> set[str]:
        query = "SELECT conversation FROM messages WHERE peer = ? AND mine = 1 AND id = ?"
        return {name for id in ids for (name,) in self._db.execute(query, (peer, id))}

    def _prune(self, peer: str, conversation: str) -> None:
        """Delete the oldest messages above the limits of this conversation and of all conversations with the peer."""
        count, size = self._db.execute("SELECT messages, bytes FROM peers WHERE peer = ?", (peer,)).fetchone()
        most = self._config.max_msgs
        if count > most:
            query = "SELECT count(*) FROM messages WHERE peer = ? AND conversation = ?"
            excess = self._one(query, peer, conversation) - most
            if excess > 0:
                count, size = self._delete_oldest(
                    peer, "AND conversation = ? ", (conversation,), count, size, count - excess
                )
        if not self._fits(count, size):
            self._delete_oldest(peer, "", (), count, size, None)

    def _delete_oldest(
        self, peer: str, where: str, parameters: tuple[str, ...], count: int, size: int, until: int | None
    ) -> tuple[int, int]:
        """Delete the oldest messages until ``until`` are left, or until the rest fits. Keeps all that wait."""
        deleted: list[tuple[int]] = []
        for seq, bytes_ in self._db.execute(
            f"SELECT seq, bytes FROM messages WHERE peer = ? {where}"  # noqa: S608 - constants
            "AND NOT (mine = 1 AND mark = 0) ORDER BY seq",
            (peer, *parameters),
        ):
            deleted.append((seq,))
            count, size = count - 1, size - bytes_
            if self._fits(count, size) if until is None else count <= until:
                break
        self._db.executemany("DELETE FROM messages WHERE seq = ?", deleted)
        self._db.execute("UPDATE peers SET messages = ?, bytes = ? WHERE peer = ?", (count, size, peer))
        return count, size

    def _fits(self, count: int, size: int) -> bool:
        return count <= self._config.history and size <= self._config.history_bytes

    def _mark(self, where: str, peer: str, ids: Iterable[str], mark: int, *more: object) -> list[str]:
        return [
            id
            for id in ids
            if self._db.execute(
                f"UPDATE messages SET mark = ? WHERE {where} AND id = ?",  # noqa: S608 - constants
                (mark, peer, mark, *more, id),
            ).rowcount
        ]


def count_contents(connection: StoreConnection) -> tuple[int, int, int]:
    """Return the number of messages, of peers, and of messages that wait."""
    messages, waiting = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE mine = 1 AND mark = 0) FROM messages"
    ).fetchone()
    (peers,) = connection.execute("SELECT count(*) FROM peers").fetchone()
    return messages, peers, waiting
