"""Tests of ``fastn_p2p.protocols._shared``."""
