"""Chat for programs: ``ChatClient`` sends and follows conversations as an identity of this machine.

::

    from fastn_p2p_client import Client
    from fastn_p2p_client.chat import ChatClient

    async with Client() as client:
        bob = await ChatClient(client, "alice").with_peer("bob")
        await bob.send("hello")

Layout
------

``client``    ``ChatClient`` and ``Conversation``
``messages``  the messages of the protocol ``Chat``
"""

from .client import ChatClient, Conversation
from .messages import ChatMessage, ConversationSummary, DeliveryProblem, Event, HistoryEnd, Presence, StateChanged

__all__ = [
    "ChatClient",
    "ChatMessage",
    "Conversation",
    "ConversationSummary",
    "DeliveryProblem",
    "Event",
    "HistoryEnd",
    "Presence",
    "StateChanged",
]
