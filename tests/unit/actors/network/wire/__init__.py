"""Tests of ``fastn_p2p_actors.network.wire``."""
