"""Errors of the program: it passed or used something invalid."""

from __future__ import annotations

from .p2p_error import UsageError


class InvalidKey(UsageError):
    """The text is not an ID52, or its 32 bytes are not a valid key."""

    code = "invalid-key"
    template = "{text!r} is not a public key: {reason}. Copy the ID52 again: fastn-p2p identity list"
    text: str
    reason: str


class InvalidTicket(UsageError):
    """The text is not a ticket, or it is damaged."""

    code = "invalid-ticket"
    template = "not a valid ticket: {reason}. Ask the peer for a new one: fastn-p2p ticket NAME"
    reason: str


class InvalidToken(UsageError):
    """The text is not a worker's token, or it is damaged."""

    code = "invalid-token"
    template = (
        "not a valid token of a worker: {reason}. The owner makes a new one: fastn-p2p worker-token NAME --protocol "
        "PROTOCOL"
    )
    reason: str


class InvitationNotRedeemed(UsageError):
    """The ticket of a peer is an invitation, which was not redeemed yet."""

    code = "invitation-not-redeemed"
    template = "this ticket is an invitation. Redeem it first: fastn-p2p peer add TICKET --name NAME"


class InvalidName(UsageError):
    """``name`` is not a valid name of ``what``: too long, or with characters that are not allowed."""

    code = "invalid-name"
    template = "{name!r} cannot be the name of {what}: {reason}"
    name: str
    what: str
    reason: str


class InvalidConfig(UsageError):
    """The config does not fit the protocol. ``reason`` names the field."""

    code = "invalid-config"
    template = "the config of {protocol} is not valid: {reason}"
    protocol: str
    reason: str


class BadRequest(UsageError):
    """The request does not have the type that the handler takes. ``reason`` names the field."""

    code = "bad-request"
    template = "the request does not fit {protocol}: {reason}"
    protocol: str
    reason: str


class BadReply(UsageError):
    """The reply does not have the type that the caller expects. ``reason`` names the field."""

    code = "bad-reply"
    template = "the reply of {protocol} is not of the expected type: {reason}"
    protocol: str
    reason: str


class BadMessage(UsageError):
    """The bytes are not a message of the protocol."""

    code = "bad-message"
    template = "not a message of this protocol: {reason}"
    reason: str


class InvalidPassphrase(UsageError):
    """The passphrase or key is empty, too long or incomplete."""

    code = "invalid-passphrase"
    template = "this passphrase cannot be used: {reason}. Give its first line with --passphrase-file, or type it"
    reason: str


class SessionClosed(UsageError):
    """``what`` was tried after this program closed or reset the session."""

    code = "session-closed"
    template = "{what} after this program closed the session"
    what: str


class UsedElsewhere(UsageError):
    """The object belongs to another process or event loop. Nothing was sent."""

    code = "used-elsewhere"
    template = "{what} cannot be used here: {reason}"
    what: str
    reason: str


class PayloadTooLarge(UsageError):
    """The payload has more bytes than the limit. Nothing was sent."""

    code = "payload-too-large"
    template = "the payload has {size} bytes, the limit is {limit}. Send large data through a stream"
    size: int
    limit: int
