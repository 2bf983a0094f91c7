"""The command line that experiments share: a size, a folder, rows that are kept, tables and a plot."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.ledger import Ledger
from rlx import errors
from rlx.config import parse_options, to_json
from rlx.report.rows import write_atomically

Config = ConfigDict | Mapping[str, Any]


class Frame(NamedTuple):
    """What an experiment fills in.

    Attributes:
      name: of the folder under ``runs/``; a size other than the default is added to it.
      usage: what ``--help`` prints, and which options there are.
      keys: the fields that tell rows apart.
      config: (size, options) -> what goes into ``config.json``.
      work: (config, ledger, folder) -> the text of ``table.md``, after all files are written.
      sizes: the switches that choose a size.
      default: the size without a switch.
      folder: of the default size, if not the name.
    """

    name: str
    usage: str
    keys: tuple[str, ...]
    config: Callable[[str, Mapping[str, Any]], Config]
    work: Callable[[Any, Ledger, Path], str]
    sizes: tuple[str, ...] = ("full", "smoke")
    default: str = "default"
    folder: str | None = None


def run(frame: Frame, argv: Sequence[str] | None = None) -> None:
    """Parses the options, computes what is missing, and prints the tables."""
    options, _ = parse_options(sys.argv[1:] if argv is None else argv, frame.usage)
    size = next((size for size in frame.sizes if options[size]), frame.default)
    start, config = time.monotonic(), frame.config(size, options)
    folder = (frame.folder or frame.name) if size == frame.default else f"{frame.name}_{size}"
    workdir = Path(options["workdir"] or f"runs/{folder}")
    plain = {key: value.to_dict() if isinstance(value, ConfigDict) else value for key, value in config.items()}
    ledger = Ledger(workdir / "metrics.jsonl", frame.keys)
    write_atomically(workdir / "config.json", to_json(plain))
    print(frame.work(config, ledger, workdir))
    print(f"{workdir}: metrics.jsonl table.md table.csv plot.png ({size}, {time.monotonic() - start:.0f} s)")


def program(main: Callable[[], None]) -> None:
    """Runs a command: a mistake of the user is one line, and exit code 2."""
    try:
        main()
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
