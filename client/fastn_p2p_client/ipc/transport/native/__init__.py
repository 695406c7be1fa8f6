"""ZMTP 3.1 on the event loop: no thread and no other process wakes up between two processes.

- ``codec``: the bytes of greetings, commands and messages.
- ``decoder``: bytes to messages.
- ``connection``: one connected socket.
"""
