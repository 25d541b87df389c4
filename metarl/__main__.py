"""`python -m metarl` is `metarl`."""

import sys

from metarl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
