"""``python -m rlx.export``: the policy of a checkpoint as a folder that ``transformers`` and others load."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx import config as configs
from rlx.data.tokenizers import GENERATION
from rlx.errors import UserError
from rlx.models import huggingface
from rlx.models.huggingface.folder import read_config
from rlx.models.huggingface.writing import SHARD, check_target
from rlx.train.restore import Restored, open_run

USAGE = """python -m rlx.export --checkpoint=DIR --to=DIR [--dtype=bfloat16] [--adapter]

Writes the policy of a run directory's last checkpoint (or of the one named, DIR/checkpoints/00000120) as a folder of
Hugging Face's kind: config.json, safetensors and, where the run has them, the files of its tokenizer. Adapters are
merged; with --adapter they are written alone, in the format of PEFT. The folder must be new or empty. dtype is that of
the numbers, by default that of the run's parameters.
"""

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "tokenizer.model", "vocab.json", "merges.txt",
)  # fmt: skip
"""Files of a tokenizer, as far as a folder has them."""


def export(checkpoint: Restored, to: str, *, dtype: str | None = None, shard_bytes: int = SHARD) -> None:
    """Writes the policy of a checkpoint.

    Args:
      checkpoint: see :func:`rlx.train.restore.restore`.
      to: a folder that is new or empty.
      dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``; None: as the run's parameters.
      shard_bytes: of a file at most.

    Raises:
      UserError: the folder is not empty, or no Hugging Face architecture has such a model.
    """
    run, policy = checkpoint.run, checkpoint.state.params["policy"]
    config, raw = huggingface.config_of(run.model_config)
    if run.model.lora is not None:
        from rlx.models.lora import merge

        config, policy = dataclasses.replace(config, lora=None), merge(run.model, policy)
    config = dataclasses.replace(config, freeze=())
    description = huggingface.describe(config, raw)
    if raw is None:
        length = sum(checkpoint.stage.data[f"max_{part}_length"] for part in ("prompt", "response"))
        tokens = {f"{name}_token_id": getattr(run.tokenizer, f"{name}_id") for name in ("bos", "eos", "pad")}
        description |= {"max_position_embeddings": length, **tokens}
    files = _files(run.config)

    def copy(folder: Path) -> None:
        for file in files:
            shutil.copyfile(file, folder / file.name)

    huggingface.save(to, config, policy, description, dtype=dtype, shard_bytes=shard_bytes, finish=copy)


def export_adapter(checkpoint: Restored, to: str) -> None:
    """Writes the adapters of a checkpoint in PEFT's format, for the model that the run started from.

    Raises:
      UserError: the folder is not empty or cannot be written, or the run has no adapters.
    """
    from rlx.models.peft import save_adapter

    folder, run = Path(to).expanduser().absolute(), checkpoint.run
    check_target(folder)
    base = run.model_config.get("path") if run.model_config.get("name") == "hf" else None
    try:
        save_adapter(folder, run.model, checkpoint.state.params["policy"], base=base)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None


def _files(config: Mapping[str, Any]) -> list[Path]:
    """What is copied: the tokenizer of the run, and how the model that it started from likes to be sampled."""
    found = []
    tokenizer, model = config.get("tokenizer") or {}, config.get("model") or {}
    if tokenizer.get("name") == "hf":
        path = Path(tokenizer["path"]).expanduser()
        folder = path if path.is_dir() else path.parent
        found += [folder / name for name in TOKENIZER]
    if model.get("name") == "hf":
        found.append(read_config(model["path"])[0] / GENERATION)
    return [file for file in found if file.is_file()]


def cli(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    try:
        options, _ = configs.parse_options(argv, USAGE)
        check_target(Path(options["to"]).expanduser().absolute())
        if options["adapter"] and options["dtype"]:
            raise UserError(f"--dtype={options['dtype']} is not used: adapters are written in the type that they have.")
        checkpoint, kind = (
            open_run(options["checkpoint"]),
            "the adapters" if options["adapter"] else "a Hugging Face folder",
        )
        if options["adapter"]:
            export_adapter(checkpoint, options["to"])
        else:
            export(checkpoint, options["to"], dtype=options["dtype"])
        print(f"{options['to']}: {kind} of {options['checkpoint']}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(cli(sys.argv[1:]))
