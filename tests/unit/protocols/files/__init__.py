"""Tests of ``fastn_p2p.protocols.files``."""
