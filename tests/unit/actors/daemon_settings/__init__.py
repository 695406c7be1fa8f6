"""Tests of ``fastn_p2p_actors.daemon_settings``."""
