"""`python -m runtime_check` is the command `runtime-check`."""

import sys

from runtime_check.cli import main

if __name__ == "__main__":
    sys.exit(main())
