"""Tests of ``fastn_p2p.cli.commands``."""
