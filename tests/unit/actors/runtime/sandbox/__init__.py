"""Tests of ``fastn_p2p_actors.runtime.sandbox``."""
