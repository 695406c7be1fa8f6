"""Grants are valid for their key and subject only."""

from __future__ import annotations

import pytest

from fastn_p2p_actors.runtime.grants import (
    GATEWAY_SUBJECT,
    GRANT_BYTES,
    check_grant,
    make_grant,
    program_subject,
    verify_grant,
)
from fastn_p2p_client.errors import Forbidden, InvalidName
from fastn_p2p_client.names import check_name

KEY = bytes(32)


def test_holds_for_its_key_and_subject_only() -> None:
    grant = make_grant(KEY, "alice")
    assert len(grant) == GRANT_BYTES
    assert verify_grant(KEY, "alice", grant)
    check_grant(KEY, "alice", grant)  # does not raise
    for key, subject, proof in [
        (b"1" * 32, "alice", grant),
        (KEY, "bob", grant),
        (KEY, "alice", b""),
        (KEY, "alice", grant[:-1]),
    ]:
        assert not verify_grant(key, subject, proof)
        with pytest.raises(Forbidden, match=f"act as '{subject}'"):
            check_grant(key, subject, proof)


def test_no_identity_has_the_subject_of_the_gateway_or_of_a_program() -> None:
    for subject in (GATEWAY_SUBJECT, program_subject("alice", "Echo", "default")):
        with pytest.raises(InvalidName):
            check_name(subject, "an identity")
