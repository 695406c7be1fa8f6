"""Conversations between two identities: what the protocol ``Chat`` and the command ``fastn-p2p chat`` are made of.

Each side keeps the conversation at its own binding, and the bindings talk to each other. Programs and terminals of an
owner talk to the owner's binding alone, so that all of them see the same.

Layout
------

``protocol``, ``config``    the protocol ``Chat``, and its config
``message_store``           the messages, in SQLite in the binding's workspace; ``ledger``: the same for an event loop
``delivery``                brings one peer what waits for it; ``line`` calls the peer's binding
``open_conversations``      the terminals that look at a conversation, and whether the peer looks at it too
``presence``                tells a peer that somebody is here
``formatting``              how a message looks: nothing that a peer sends reaches a terminal as it is
``terminal_ui``             a conversation in a terminal: an editor with the latest messages above it
``piped_ui``                the same with piped input or output, in lines or JSON
``cli``                     ``fastn-p2p chat``: which of the two, and how it ends

Messages and client are in ``fastn_p2p_client.chat``.
"""
