"""Pairing by a code of four words: two owners put each other into their address books.

It runs in the process of the command ``fastn-p2p pair``, with an endpoint of its own that lives as long as the command.
So the daemon's processes see neither words nor derived keys, and an end of the command leaves nothing behind.

- ``code``: the words, and how an owner types them.
- ``rendezvous``: this machine, the LAN and the directories, which have the record that says where the host waits.
- ``pairing_endpoint``: endpoint of the pairing itself.
- ``exchange``: proof of all four words (SPAKE2), and exchange of names, tickets and nonces.
- ``host``, ``joiner``: the side that shows the words, and the side that types them.
- ``pairing_book``: changes of the daemon's address book, which a failed pairing takes back.
- ``replica_books``: the same for an identity that another daemon joins; ``agreement_book``: what both have in common.
- ``result``: the peer that a pairing has added; ``pairing_errors``: the other ends of a pairing.

The host shows the words. The first two words find the host: anyone with them can read where its endpoint is. All four
prove that both sides have the same code, without giving an attacker anything to test guesses on.
"""
