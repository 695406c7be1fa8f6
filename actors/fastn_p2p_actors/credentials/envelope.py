"""Signed envelope: a msgpack array ``[body, signature]``, used for everything that an identity signs.

The signature covers a prefix, which names the kind of body, and the body's bytes as they travel. So a signature for one
kind is never valid for another. A body and a signature have exactly one envelope, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from fastn_p2p_client.errors import BadMessage, BadSignature, InvalidKey
from fastn_p2p_client.keys import PublicKey, proven_key

from .sodium import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify

PREFIXES: Final = {
    "delegation": b"fastn-p2p/delegation/1\0",
    "record": b"fastn-p2p/record/1\0",
    "revocation": b"fastn-p2p/revocation/1\0",
    "invitation": b"fastn-p2p/invitation/1\0",
    "owner": b"fastn-p2p/owner/1\0",
}
"""Prefix that the signature covers, by kind of body."""

CLOCK_SKEW: Final = 60.0
"""Seconds by which the clocks of two daemons may differ."""
KeyBytes = Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
UnixTime = Annotated[int, Meta(ge=0, lt=2**40)]


class Body(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """Base of signed structs. Its first two fields are the version and the identity that signs."""

    version: int
    identity: KeyBytes

    @property
    def key(self) -> PublicKey:
        """Identity that signed it."""
        return proven_key(self.identity)


class SignedParts(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """Envelope of a signed body."""

    body: bytes
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


AnyBody = TypeVar("AnyBody", bound=Body)


class _Version(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """First field of every body."""

    version: int


_encoder = msgspec.msgpack.Encoder()
_version = msgspec.msgpack.Decoder(_Version)
_envelope = msgspec.msgpack.Decoder(SignedParts)
encode_body = _encoder.encode


def signing_input(kind: str, body: bytes) -> bytes:
    """Return the bytes that the signature of a body covers."""
    return PREFIXES[kind] + body


def seal(body: bytes, signature: bytes) -> bytes:
    """Return the signed blob."""
    return _encoder.encode(SignedParts(body, signature))


def open_parts(blob: bytes) -> SignedParts:
    """Return body and signature of a blob that was opened before. Nothing is verified."""
    return _envelope.decode(blob)


Decoders: TypeAlias = Mapping[int, msgspec.msgpack.Decoder[AnyBody]]
"""Decoder of each known version of a body."""


def open_signed(kind: str, blob: bytes, decoders: Decoders[AnyBody], limit: int) -> AnyBody:
    """Return the body of ``blob``, after verifying its signature.

    Args:
        kind: key of ``PREFIXES``.
        blob: the envelope.
        decoders: decoders of the versions that the body may have.
        limit: bytes that the blob may have.

    Raises:
        BadMessage: it is larger than ``limit``, has another shape, or is of another version.
        BadSignature: the identity that it names has not signed it.
    """
    envelope, body = _decode(kind, blob, decoders, limit)
    if verify(body.identity, signing_input(kind, envelope.body), envelope.signature):
        return body  # the identity is a key: libsodium accepts none that is no point, not canonical or of small order
    try:
        identity = PublicKey(body.identity)
    except InvalidKey as error:
        raise BadMessage(reason=f"the identity of a signed {kind}: {error.reason}") from None
    raise BadSignature(what=kind, identity=identity.id52)


def peek_signed(kind: str, blob: bytes, decoders: Decoders[AnyBody], limit: int) -> AnyBody:
    """Return the body of ``blob`` without verifying its signature.

    Raises:
        BadMessage: it is larger than ``limit``, has another shape, or is of another version.
    """
    return _decode(kind, blob, decoders, limit)[1]


def _decode(kind: str, blob: bytes, decoders: Decoders[AnyBody], limit: int) -> tuple[SignedParts, AnyBody]:
    if len(blob) > limit:
        raise BadMessage(reason=f"a signed {kind} of {len(blob)} bytes, the limit is {limit}")
    try:
        envelope = _envelope.decode(blob)
        version = _version.decode(envelope.body).version
        decoder = decoders.get(version)
        if decoder is None:
            known = " and ".join(map(str, decoders))
            raise BadMessage(reason=f"a {kind} of version {version}, this daemon reads {known}: update it")
        body = decoder.decode(envelope.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # msgspec does not convert the latter
        raise BadMessage(reason=f"no signed {kind}: {error}") from None
    if seal(envelope.body, envelope.signature) != blob:
        raise BadMessage(reason=f"the envelope of a signed {kind} is not in its shortest form")
    return envelope, body
