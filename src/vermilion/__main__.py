"""`python -m vermilion` is the command line."""

import sys

from vermilion.cli import main

if __name__ == "__main__":
    sys.exit(main())
