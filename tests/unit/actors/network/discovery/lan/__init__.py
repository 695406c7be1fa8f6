"""Tests of fastn_p2p_actors.network.discovery.lan that need no network."""
