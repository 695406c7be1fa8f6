"""Built-in protocols: ``echo``, ``tunnel``, ``web``, ``chat``, ``files`` and ``mail``.

``_shared`` has what several of them use.

The daemon finds them by their entry points, like any other.
"""
