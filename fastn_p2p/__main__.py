"""Entry point of ``python -m fastn_p2p``, which is ``fastn-p2p``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
