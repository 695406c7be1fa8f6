"""Messages between a bridge and its workers, and the NATS subjects that they travel on.

A NATS message is a msgpack array of these messages. The bridge makes an id for each offer of a call.

==========================================  =================================================================
subject                                     messages
==========================================  =================================================================
``fastn-p2p.ID.PROTOCOL.INSTANCE.workers``  ``FindWorkers``: from a bridge to all workers
``….worker.WORKER``                         ``Offer``, ``Begin``, ``Part``, ``CancelOffer``, ``OfferSession``,
                                            ``DialForSession``: to one worker
``….worker.WORKER.ping``                    ``Ping``: to its thread that answers them
``….bridges``                               ``WorkerReady``, ``WorkerDraining``: from a worker to all bridges
``….bridge.BRIDGE.WORKER``                  ``Accepted``, ``Late``, ``Answer``, ``Part``, ``Pong``,
                                            ``AcceptSession``, ``RefuseSession``: to one bridge
==========================================  =================================================================

Bytes of sessions do not pass through NATS: the worker connects to the daemon for each.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple, TypeAlias

import msgspec

from ..ipc.messages.base import Message
from ..limits import DEFAULT_INSTANCE
from ..names import check_name

ID_BYTES: Final = 16
MAX_GROUP: Final = 1024
"""Messages in one NATS message."""
_NAME: Final = re.compile(r"[0-9a-f]{16}")


class FindWorkers(Message, frozen=True, tag=160):
    """Ask all workers to send ``WorkerReady``."""


class WorkerReady(Message, frozen=True, tag=161):
    """The worker takes calls."""

    worker: str
    label: str
    """Program and machine, for logs."""
    capacity: int
    """Calls that it takes at once; 0 for no limit."""
    serves_sessions: bool = False
    sessions: int = 0
    """Sessions that it has. It sends this message again when their number has changed."""


class WorkerDraining(Message, frozen=True, tag=162):
    """The worker takes no more calls, and finishes those that it has accepted."""

    worker: str


class Offer(Message, frozen=True, tag=163):
    """A call. The worker begins it, and says ``Accepted`` unless it has the answer at once; or it says ``Late``."""

    id: bytes
    bridge: str
    key: bytes
    """Public key of the identity."""
    header: bytes
    """``DeliverCall`` of the local protocol."""
    payload: bytes
    size: int
    """Bytes of the payload. If there are more than in this message, they follow as ``Part`` once it is accepted."""


class Accepted(Message, frozen=True, tag=164):
    """The worker has begun these calls, and sends their answers later."""

    ids: tuple[bytes, ...]


class Late(Message, frozen=True, tag=165):
    """The worker has perhaps got this offer late, and waits for ``Begin``."""

    id: bytes


class Begin(Message, frozen=True, tag=166):
    """The call was not given to another worker: begin."""

    id: bytes


class CancelOffer(Message, frozen=True, tag=167):
    """The bridge does not wait for this call any more."""

    id: bytes


class Answer(Message, frozen=True, tag=168):
    """The answer of a handler: header and payload of the local protocol."""

    id: bytes
    header: bytes
    payload: bytes
    size: int
    """Bytes of the payload. If there are more than in this message, they follow as ``Part``."""


class Part(Message, frozen=True, tag=169):
    """The next bytes of a payload."""

    id: bytes
    data: bytes


class Ping(Message, frozen=True, tag=170):
    """Ask whether the worker lives, and still has these calls."""

    bridge: str
    ids: tuple[bytes, ...]


class Pong(Message, frozen=True, tag=171):
    """The worker lives."""

    known: tuple[bytes, ...]
    """Calls that it has begun, and those whose answer is on its way."""
    unknown: tuple[bytes, ...]
    is_late: bool
    """The worker may not have read all offers yet, because it computes, or receives large requests. Then it will ask
    before it begins them."""


class OfferSession(Message, frozen=True, tag=172):
    """A session. The worker answers ``AcceptSession``, or ``RefuseSession``."""

    id: bytes
    bridge: str
    key: bytes
    """Public key of the identity."""


class AcceptSession(Message, frozen=True, tag=173):
    """The worker takes the session, and has made a token for it, which it shows to the daemon alone."""

    id: bytes
    token_hash: bytes


class RefuseSession(Message, frozen=True, tag=174):
    """The worker does not take the session: it ends, or cannot reach the daemon."""

    id: bytes
    reason: str


class DialForSession(Message, frozen=True, tag=175):
    """The daemon knows the token: connect, show it, and serve the session."""

    id: bytes
    address: str
    """Host and port of the daemon."""
    fingerprint: bytes
    """SHA-256 of the certificate with which it answers: no other one is accepted."""


ToWorker: TypeAlias = FindWorkers | Offer | Begin | CancelOffer | Part | Ping | OfferSession | DialForSession
ToBridge: TypeAlias = (
    WorkerReady | WorkerDraining | Accepted | Late | Answer | Part | Pong | AcceptSession | RefuseSession
)
AnyMessage: TypeAlias = ToWorker | ToBridge

encode: Final = msgspec.msgpack.Encoder().encode
decode_for_worker: Final = msgspec.msgpack.Decoder(list[ToWorker]).decode
decode_for_bridge: Final = msgspec.msgpack.Decoder(list[ToBridge]).decode


class Subjects(NamedTuple):
    """NATS subjects of one binding."""

    base: str

    @classmethod
    def of(cls, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> Subjects:
        """Return the subjects of a binding. Raises InvalidName."""
        check_name(identity, "an identity")
        check_name(protocol, "a protocol")
        check_name(instance, "an instance")
        return cls(f"fastn-p2p.{identity}.{protocol}.{instance}")

    @property
    def all_workers(self) -> str:
        return f"{self.base}.workers"

    @property
    def all_bridges(self) -> str:
        return f"{self.base}.bridges"

    def worker(self, worker: str) -> str:
        return f"{self.base}.worker.{worker}"

    def ping(self, worker: str) -> str:
        return f"{self.base}.worker.{worker}.ping"

    def bridge(self, bridge: str, worker: str) -> str:
        return f"{self.base}.bridge.{bridge}.{worker}"


def new_name() -> str:
    """Return a random name of a worker or bridge."""
    return os.urandom(8).hex()


def is_name(text: str) -> bool:
    """Return whether ``text`` can be the name of a worker or bridge, and so a part of a subject."""
    return _NAME.fullmatch(text) is not None
