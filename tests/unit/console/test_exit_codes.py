"""Exit codes: the table is complete, and published numbers do not change."""

import pytest

import fastn_p2p_client.errors as errors
from fastn_p2p.console.exit_codes import EXITS, TABLE, ExitCode


def test_every_error_code_has_an_exit_code_of_its_own_line() -> None:
    assert set(EXITS) == set(errors.CODES)


def test_every_exit_code_is_explained() -> None:
    assert set(TABLE) == set(ExitCode)
    assert len(set(TABLE.values())) == len(TABLE)


def test_no_error_of_the_system_ends_like_success_or_like_an_application_error() -> None:
    assert not {ExitCode.OK, ExitCode.APPLICATION} & set(EXITS.values())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("invalid-name", 2),
        ("daemon-not-running", 3),
        ("daemon-busy", 3),
        ("peer-unreachable", 4),
        ("peer-unknown", 4),
        ("peer-offline", 4),
        ("denied", 5),
        ("forbidden", 5),
        ("deadline-exceeded", 6),
        ("identity-not-found", 7),
        ("binding-not-found", 7),
        ("protocol-not-found", 7),
        ("instance-not-found", 7),
        ("identity-exists", 8),
        ("overloaded", 9),
        ("connection-lost", 10),
        ("identity-offline", 11),
        ("handler-failed", 12),
        ("internal-error", 70),
    ],
)
def test_published_numbers(code: str, expected: int) -> None:
    assert EXITS[code] == expected
