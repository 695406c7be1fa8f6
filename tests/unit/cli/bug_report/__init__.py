"""Tests of the bug report."""
