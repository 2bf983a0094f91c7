"""``python -m rlx.train``."""

import sys

from rlx.train.main import cli

if __name__ == "__main__":
    sys.exit(cli(sys.argv[1:]))
