"""Tests of ``fastn_p2p_actors.gateway.metrics``."""
