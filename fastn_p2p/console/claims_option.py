"""Option ``--claims`` of commands about protocols."""

from __future__ import annotations

from .exit_codes import CommandLineError


def check_claims_option(url: str | None) -> None:
    """Check the URL of a store of claims, its files, and that its library is installed. Raises CommandLineError."""
    if url:
        from fastn_p2p_client.claims.claims_url import parse_claims

        try:
            parse_claims(url).check("fastn-p2p")
        except ValueError as error:
            raise CommandLineError(f"--claims: {error}") from None
