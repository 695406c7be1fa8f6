"""Known records of one peer: for each of its endpoints the newest statement, in as few signed records as hold them.

Several daemons may serve one identity, and each may publish a record that does not name the others. So the newest
record does not replace the older ones: it replaces their statements about its own endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..credentials import MAX_DELEGATIONS, PeerRecord, is_from_future, peek_endpoints, peek_record, read_record


class KnownRecords:
    """Signed records of one identity, newest first. Immutable.

    Args:
        blobs: the signed records. Their signatures are verified when they are first used, because 10,000 take seconds.

    Attributes:
        sequence: sequence of the newest record; -1 without a record.
        endpoints: number of endpoints in the records.

    Raises:
        BadMessage: a record is damaged.
    """

    __slots__ = ("_statements", "_verified", "blobs", "endpoints", "identities", "sequence")

    def __init__(self, blobs: Sequence[bytes] = ()) -> None:
        bodies = [(peek_record(blob), blob) for blob in blobs]
        bodies.sort(key=lambda each: each[0].sequence, reverse=True)
        self.blobs = tuple(blob for _, blob in bodies)
        self.identities = {body.identity for body, _ in bodies}
        """Keys that the records name. The caller must check them."""
        self.sequence = bodies[0][0].sequence if bodies else -1
        self._statements = [peek_endpoints(body.endpoints) for body, _ in bodies]
        self.endpoints = len(self.endpoint_keys())
        self._verified: list[PeerRecord] | None = None

    def endpoint_keys(self) -> set[bytes]:
        """Return the keys of the endpoints in the records."""
        return set().union(*self._statements)

    def merged(self, blobs: Sequence[bytes], now: float) -> KnownRecords:
        """Return these records and ``blobs``, without those whose every endpoint has a newer statement in another.

        Records from the future were signed while a clock was ahead. They go as soon as one of ``blobs`` is not so.

        Args:
            blobs: signed records of the same identity.
            now: Unix time.

        Raises:
            BadMessage: one of them is damaged.
        """
        candidates = KnownRecords((*self.blobs, *(blob for blob in blobs if blob not in self.blobs)))
        sequences = {blob: peek_record(blob).sequence for blob in candidates.blobs}
        corrected = any(not is_from_future(sequences[blob], now) for blob in blobs)
        newest: dict[bytes, tuple[int, bytes]] = {}
        for blob, statements in zip(candidates.blobs, candidates._statements, strict=True):
            if corrected and is_from_future(sequences[blob], now):
                continue
            for endpoint, sequence in statements.items():
                if endpoint not in newest or sequence > newest[endpoint][0]:
                    newest[endpoint] = sequence, blob
        kept = dict.fromkeys(blob for _, blob in newest.values())
        return KnownRecords(sorted(kept, key=lambda blob: sequences[blob], reverse=True)[:MAX_DELEGATIONS])

    def verified(self) -> list[PeerRecord]:
        """Return the records with valid signatures, newest first. They may be out of date.

        Raises:
            BadMessage, BadSignature: a record is damaged or forged.
        """
        if self._verified is None:
            self._verified = [read_record(blob) for blob in self.blobs]
        return self._verified
