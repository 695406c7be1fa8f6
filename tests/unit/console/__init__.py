"""Tests of ``fastn_p2p.console``."""
