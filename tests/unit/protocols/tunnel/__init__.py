"""Tests of Tunnel."""
