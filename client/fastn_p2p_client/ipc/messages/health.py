"""Control messages of ``fastn-p2p health`` and ``fastn-p2p metrics``."""

from __future__ import annotations

from .base import Ack, Message, Record

__all__ = ["GetHealth", "GetMetrics", "HealthProblem", "HealthReply"]


class HealthProblem(Record, frozen=True):
    """A part of the daemon that is not well."""

    part: str
    """Name of the process."""
    code: str
    """``daemon-busy``, ``vault-locked`` or ``identity-failed``, as the error of a request that needs the part."""
    text: str


class HealthReply(Message, frozen=True, tag=118):
    """Problems of the daemon, the gravest first; none if it is well."""

    problems: list[HealthProblem]


class GetHealth(Message, frozen=True, tag=117):
    """Ask whether all processes of the daemon are well."""

    reply_type = HealthReply


class GetMetrics(Message, frozen=True, tag=119):
    """Get the metrics of the daemon. The payload of the reply is the page in the text format of Prometheus."""

    reply_type = Ack
