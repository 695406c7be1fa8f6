"""ZMTP 3.1 on the event loop. Between sender and receiver no other thread or process wakes up.

- ``codec``: encode greetings, commands and messages.
- ``decoder``: decode bytes to messages.
- ``read_buffer``: the buffer that connections share; ``socket_transport``: asyncio's transport of a socket.
- ``connection``: ``ZmtpConnection``, one connected socket.
"""
