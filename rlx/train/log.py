"""What a run says beside its progress: one line each, on stderr."""

import sys


def say(text: str) -> None:
    """Prints a line."""
    print(f"rlx: {text}", file=sys.stderr, flush=True)
