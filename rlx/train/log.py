"""What a run says beside its progress: one line each, on stderr."""

import sys

from rlx.train import processes


def say(text: str) -> None:
    """Prints a line; of several processes, the first one speaks for all."""
    if processes.group().leads:
        print(f"rlx: {text}", file=sys.stderr, flush=True)
