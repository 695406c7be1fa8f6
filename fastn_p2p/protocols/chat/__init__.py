"""Conversations between two identities: what the protocol ``Chat`` and the command ``fastn-p2p chat`` are made of.

Each side keeps the conversation at its own binding, and the bindings talk to each other. Programs and terminals of an
owner talk to the owner's binding alone, so that all of them see the same.

Layout
------

``messages``    what is said: between a program and its own binding, and between two bindings
``settings``    the config: how much is kept
``history``     the messages, in SQLite in the binding's workspace
``ledger``      the same for an event loop
``courier``     brings one peer what waits for it, as soon as the peer can be called
``line``        the line to the peer's binding
``pauses``      how long to wait before something is tried again
``rooms``       the terminals that look at a conversation, and whether the peer looks at it too
``attendance``  tells a peer that somebody is here
``frames``      messages on a session
``client``      ``ChatClient`` and ``Conversation``: what programs use, and the command
``text``        how a message looks: nothing that a peer sends reaches a terminal as it is
``terminal``    a conversation in a terminal: an editor with the latest messages above it
``piped``       the same with piped input or output, in lines or JSON
``command``     ``fastn-p2p chat``: which of the two, and how it ends
"""
