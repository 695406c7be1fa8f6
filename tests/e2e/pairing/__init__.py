"""Pairing by a code of four words, with real daemons."""
