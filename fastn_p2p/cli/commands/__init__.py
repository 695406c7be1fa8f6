"""Commands of ``fastn-p2p``, one module each. A command imports what it needs when it runs."""
