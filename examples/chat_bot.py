"""A bot that answers chat messages of every peer in the address book.

    fastn-p2p add-protocol alice --protocol Chat
    python examples/chat_bot.py alice

A peer then writes with ``fastn-p2p chat alice``. The daemon keeps what comes while the bot is not running, and the bot
answers it later. Start the bot again after you have added a peer.
"""

from __future__ import annotations

import asyncio
import sys

from fastn_p2p_client import Client, P2PError
from fastn_p2p_client.chat import ChatClient, ChatMessage, Conversation


def answer(text: str) -> str:
    """Return what the bot says to a message."""
    words = text.split()
    if words and all(word.isdecimal() for word in words):
        return f"The sum is {sum(map(int, words))}."
    return "Send me numbers, and I add them."


async def reply_to(conversation: Conversation) -> None:
    """Answer each message once: those of the peer that were not answered before, then new ones."""
    async for event in conversation.events(last=100):
        if isinstance(event, ChatMessage) and not event.mine and event.mark != "seen":
            # An id made of the question's: after a crash between the answer and the mark, it is not sent twice.
            await conversation.send(answer(event.text), id=f"{int(event.id, 16) ^ 1:032x}")
            await conversation.mark_read(event)
            print(f"{conversation.name}: {event.text}", flush=True)


async def main(identity: str) -> None:
    async with Client() as client:
        chat = ChatClient(client, identity)
        conversations = [await chat.with_peer(peer.id52) for peer in await client.peers.list()]
        print(f"serving chat as {identity} for {len(conversations)} peers. Ctrl-C ends it", flush=True)
        await asyncio.gather(*map(reply_to, conversations))


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:2]))
    except P2PError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
