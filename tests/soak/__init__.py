"""Soak: two daemons under load for long, with every byte checked. ``make soak`` runs it.

- ``__main__``: options, and which of the two kinds is run.
- ``rounds``: rounds of mixed load with faults, for as long as wanted; ``load`` and ``faults`` are their parts.
- ``daemons``: the two daemons; as root each is in a network of its own, with a small file system as its home.
- ``verdict``: figures of a round, and what has grown or slowed down. ``page``: ``docs/soak.md``.
- ``bulk``: so many calls and so many bytes instead of rounds.
"""
