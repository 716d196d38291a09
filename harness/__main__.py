"""`python -m harness`: see `harness.cli`."""

import io
import sys

from harness.cli import main

if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale may lack letters of a name
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))
