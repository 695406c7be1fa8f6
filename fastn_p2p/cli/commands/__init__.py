"""The commands of ``fastn-p2p``, one per module. Each imports what it needs when it runs, not before."""
