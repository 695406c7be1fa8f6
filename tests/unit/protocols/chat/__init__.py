"""Tests of Chat."""
