"""Protocol ``Chat`` and command ``fastn-p2p chat``: conversations between two identities.

Each identity stores the conversation at its own binding, and the two bindings call each other. Programs and terminals
of an owner use only the owner's binding, so that all of them see the same messages.

Layout
------

``protocol``, ``config``    the protocol ``Chat`` and its config
``message_store``           messages in an SQLite database in the workspace
``delivery``                delivery of messages and receipts to one peer
``open_conversations``      terminals that show a conversation, here and at the peer
``presence``                session that tells a peer that a terminal is open here
``formatting``              escape texts of peers
``terminal_ui``             a conversation in a terminal: an editor with the latest messages above it
``piped_ui``                a conversation with piped input or output, as lines or JSON
``cli``                     ``fastn-p2p chat``

Messages and client are in ``fastn_p2p_client.chat``.
"""
