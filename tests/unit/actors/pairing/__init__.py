"""Pairing by a code of four words."""
