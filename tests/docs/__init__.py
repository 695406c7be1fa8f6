"""Tables in ``docs/`` that are made from the code. ``python -m tests.docs`` writes them; one test compares."""
