"""Tests of ``fastn_p2p_client.ipc``."""
