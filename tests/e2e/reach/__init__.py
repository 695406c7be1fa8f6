"""Daemons that find each other through record sources."""
