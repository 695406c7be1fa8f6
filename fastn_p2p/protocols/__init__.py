"""Built-in protocols: ``echo``, ``tunnel``, ``web``, ``chat``, ``files`` and ``mail``.

``workers`` serves protocols of any name by programs on other machines. ``_shared`` has what several of them use.

The daemon finds them by their entry points, like any other.
"""
