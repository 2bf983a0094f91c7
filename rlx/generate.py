"""``python -m rlx.generate``: what the policy of a checkpoint writes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from rlx import config as configs
from rlx.data import chat as templates
from rlx.data.encode import encode_prompt
from rlx.data.formats import Rendered
from rlx.data.rows import BadRow
from rlx.data.tokenizers import end_ids
from rlx.errors import UserError
from rlx.rollout import Sampling, sample
from rlx.train.restore import Restored, open_run

USAGE = """python -m rlx.generate --checkpoint=DIR --prompt=TEXT [--max_new_tokens=64] [--temperature=1.0] [--seed=0]
                             [--chat]

Prints what the policy in a run directory's last checkpoint (or the one named, DIR/checkpoints/00000120) goes on with.
The prompt is taken as it stands, with \\n for a new line: a policy trained on HH dialogues expects
'\\n\\nHuman: ...\\n\\nAssistant:'. --chat makes it the message of a user, which the chat template of the run
(data.chat_template, else the tokenizer's own) writes out, as it does messages in training. temperature=0 takes the most
likely token.
"""


def generate(
    checkpoint: Restored,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    chat: bool = False,
) -> list[str]:
    """The responses of a policy to prompts.

    Args:
      checkpoint: see :func:`rlx.train.restore.restore`.
      prompts: texts; what exceeds ``data.max_prompt_length`` loses its beginning, as in training.
      max_new_tokens: bound on the length of a response.
      temperature: of the sampling; 0 takes the most likely token.
      seed: of the sampling.
      chat: prompts are messages of a user, written out by the chat template of the run.

    Raises:
      UserError: ``chat`` without a template.
    """
    run = checkpoint.run
    prompts = _as_messages(checkpoint, prompts) if chat else prompts
    length = checkpoint.stage.data["max_prompt_length"]
    rows = [encode_prompt(prompt, run.tokenizer, length) for prompt in prompts]
    width = max(map(len, rows))
    tokens = np.full((len(rows), width), run.tokenizer.pad_id, np.int32)
    valid = np.zeros(tokens.shape, bool)
    for i, row in enumerate(rows):
        tokens[i, width - len(row) :], valid[i, width - len(row) :] = row, True
    sampling = Sampling(max_new_tokens, temperature=temperature, eos_id=end_ids(run.tokenizer))
    policy, key = checkpoint.state.params["policy"], jax.random.PRNGKey(seed)
    drawn = jax.device_get(sample(run.model, policy, tokens, valid, sampling=sampling, key=key))
    texts = drawn.lengths - drawn.finished  # without EOS
    return [
        run.tokenizer.decode(row[:size].tolist()) for row, size in zip(drawn.tokens[:, 0], texts[:, 0], strict=True)
    ]


def _as_messages(checkpoint: Restored, prompts: Sequence[str]) -> list[str]:
    tokenizer = checkpoint.run.tokenizer
    template = templates.find(checkpoint.stage.data.get("chat_template", "auto"), tokenizer)
    if template is None:
        raise UserError("--chat: the tokenizer of this run has no chat template, or data.chat_template is 'none'.")
    try:
        return [Rendered(template.render([("user", text)], add_generation_prompt=True)) for text in prompts]
    except BadRow as error:
        raise UserError(f"--chat: {error}") from None


def cli(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    try:
        options, _ = configs.parse_options(argv, USAGE)
        numbers = {name: _number(options, name, kind) for name, kind in _NUMBERS.items() if options[name] is not None}
        text = options["prompt"].replace("\\n", "\n")
        print(generate(open_run(options["checkpoint"]), [text], **numbers, chat=options["chat"])[0])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


_NUMBERS = {"max_new_tokens": int, "temperature": float, "seed": int}


def _number(options: dict, name: str, kind: type) -> Any:
    try:
        value = kind(options[name])
    except ValueError:
        raise UserError(f"--{name} takes a number, not {options[name]!r}.") from None
    if value < (1 if name == "max_new_tokens" else 0):
        raise UserError(f"--{name}={value} is too small.")
    return value


if __name__ == "__main__":
    sys.exit(cli(sys.argv[1:]))
