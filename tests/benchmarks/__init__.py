"""The benchmark: what the daemon costs, against the same echo written straight on the iroh binding.

``make bench`` runs it (``python -m tests.benchmarks``); pytest does not collect it. Everything is measured on this
machine in one run, the sides in turn, so that a statement is a ratio and not a property of the hardware.

Layout, in the order of a run:

* ``__main__``: the command line, and which measure comes when;
* ``worker``: a measuring process and how it is told what to do; ``load``: calls in a closed loop; ``flow``: bytes at
  full speed;
* ``raw``: both on iroh alone, as client and as server; ``program``: the same through the daemons; ``handler``: the
  protocol at the other end of a session; ``tcp``: client and service of a tunnel; ``hop``: a local hop alone;
* ``quiet``: waits until the machine has nothing else to do;
* ``system``: two daemons with an identity each; ``processes``: what ``/proc`` says about them; ``memory``: how far
  they grow;
* ``calls``, ``workers``, ``remote_workers``, ``streams``, ``files``, ``tunnel``, ``layers``, ``identities``,
  ``attacks``, ``restarts``, ``starts``, ``steps``, ``footprint``, ``commands``: one measure each; ``comparison``: parts
  that those of streams have in common;
* ``reach``: how daemons on several machines find and reach each other, in networks of ``tests/lab``;
* ``targets``: what must be reached; ``results``: what a measure hands over;
* ``report``, ``chart``: the terminal, ``docs/benchmarks.md`` and ``docs/benchmarks.svg``.
"""
