"""Chat for programs.

- ``client``: ``ChatClient`` and ``Conversation``.
- ``messages``: the messages between chat programs, and to the owner's terminals.
"""
