"""Valid inputs of each kind, which :mod:`experiments.fuzz` mutates: ``{kind: {variant: [content, ...]}}``."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

from rlx import config as configs

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "yes"}]
OTHERS = [TURNS[0], {"role": "assistant", "content": "no"}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "pairs": [
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
        {"chosen": TURNS, "rejected": OTHERS},
        {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": OTHERS[1:]},
        {"prompt": "p", "chosen": "c", "rejected": "r", "preference_prob": 0.75, "rationale": "why"},
        {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]},
    ],
    "lists": [
        {"prompt": "p", "responses": ["a", "b", "c"], "scores": [0.5, 2, -1]},
        {"prompt_ids": [1], "responses_ids": [[2], [3, 4]], "scores": [1, 2]},
    ],
    "unpaired": [
        {"prompt": "p", "completion": "c", "label": True},
        {"prompt": TURNS[:1], "completion": TURNS[1:], "label": 0},
    ],
    "sft": [{"prompt": "p", "response": "r"}, {"messages": [*TURNS, *OTHERS]}, {"text": "words"}],
    "prompts": [{"prompt": "p"}, {"prompt": TURNS[:1]}, {"prompt_ids": [1, 2]}],
    "arrays": [{"prompt": "p", "chosen": "c", "rejected": "r", "rewards": [1, 0.5], "strengths": 2}],
}
TEMPLATES = [
    "{{- bos_token }}{%- for m in messages %}{{- '<|' + m['role'] + '|>\\n' + m.content | trim + eos_token }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if ns.n > 9 %}{% break %}"
    "{% endif %}{{ m | tojson }}{% endfor %}{{ strftime_now('%Y') }}",
    "{% macro say(m) %}{{ '%-5s' % m.role }}: {{ m.content }}{% endmacro %}"
    "{% for m in messages %}{{ say(m) }}{% endfor %}",
    "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages | map(attribute='content') "
    "| join(', ') }}",
]
WORDS = """{% for a in range(99999) %}|{% endfor %}|{% set x = x ~ x %}|{{ ''.__class__ }}|{{ messages }}
|{{ [0] * 9999999999 }}|{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}|{{|}}|{%|%}|{% if 1 %}|{% endif %}|{% break %}
|{{ '%999999999d' % 1 }}|{% raw %}|{# |{{ lipsum(9) }}|{{ 9 ** 99999999 }}|{{ cycler('a') }}
|{{ self }}|{% include 'a' %}|loop|messages|.|(|)|'
|-1|{{ 'a' * 999999999 }}|{% set messages = messages + messages %}|{% filter upper %}|{{ namespace }}
|{{ dict(a=1) }}|**|~"""
SIZES = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "vocab_size": 16, "intermediate_size": 8}
OVERRIDES = {
    "configs/dpo_hh.py:smoke": """--config.seed=3
--config.method.beta=0.2
--config.method=ipo
--config.preference.optimizer.learning_rate=1e-4
--config.model.hidden_size=32
--config.data.max_prompt_length=9
--config.stages=('sft', 'preference')
--config.sft.steps=2
--config.data.flip_rate=0.1
--config.mesh.data=1
--config.preference.packing.capacity=64
--config.tokenizer.name=byte
--config.model.num_layers=2
--config.sft.micro_batches=2
--config.keep=3
--config.reference=cached
--config.start=None
--config.data.eval_fraction=0.5""",
    "configs/rl.py:grpo,smoke": """--config.seed=4
--config.rl.steps=3
--config.rl.batch_size=4
--config.rl.rollout.group=4
--config.rl.rollout.temperature=0.7
--config.rl.rollout.max_new_tokens=8
--config.rl.rollout.keep=2
--config.method=grpo
--config.method.beta=0.01
--config.task.name=modadd
--config.task.size=16
--config.model.lora.rank=4
--config.rl.optimizer.clip_norm=1.0
--config.rl.rollout.stop=('a', 'b')
--config.rl.rollout.minibatches=1
--config.sft.until_loss=0.5
--config.model.init_std=0.02""",
}
LITERALS = (
    b"[" * 300,
    b"(" * 90 + b")" * 90,
    b"-" * 4000 + b"1",
    b"{1: 2}",
    b"{1, 2}",
    b"b'a'",
    b"1j",
    b"...",
    b"1e999",
)
LITERALS += (
    b"0x" + b"f" * 5000,
    b"9" * 4000,
    b"nan",
    b"inf",
    b"-1",
    b"0",
    b"2**99",
    b"__import__('os')",
    b"'\\d'",
    b"None",
)
LITERALS += (
    "ключ".encode(),
    b"lock",
    b"items",
    b".",
    b"..",
    b"=",
    b"--config.",
    b"{'a': {'b': [1]}}",
    b"10**10**10",
    b"1_0",
)


def rows() -> dict[str, list[bytes]]:
    """Three lines of each format, by the kind of data."""
    found = {kind: [_lines([row] * 3) for row in examples] for kind, examples in ROWS.items()}
    return found | {f"{kind},skip": found[kind] for kind in ("pairs", "lists", "sft")} | {"pairs,tfds": found["pairs"]}


def _lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def overrides() -> dict[str, list[bytes]]:
    """Options for two configs: some of ours, and every key of theirs with its value."""
    from rlx import config as configs

    found = {}
    for spec, text in OVERRIDES.items():
        own = [f"--config.{key}={value}" for key, value in configs.flatten(configs.load(spec)).items()]
        found[spec] = [("\n".join([text, *own])).encode()]
    return found


def results() -> dict[str, list[bytes]]:
    """Files of runs and of sweeps."""
    train = {"stage": "rl", "split": "train", "loss": 0.5, "reward": 0.25, "rollout_entropy": 1.5, "covariance": 0.1}
    rows = [{**train, "step": step, "loss": 1 / (step + 1)} for step in range(1, 5)]
    rows += [{"stage": "sft", "step": 4, "split": "eval", "acc": 0.5, "acc_low": 0.4, "acc_high": 0.6, "kl": "NaN"}]
    config = {"seed": 0, "method": {"name": "dpo", "beta": 0.1}, "stages": ["sft"], "model": {"hidden_size": 16}}
    cells = [
        {"run": f"r{i}", "index": i, "overrides": {"method.beta": beta, "seed": i, "method": "dpo"}, "metrics": metrics}
        for i, (beta, metrics) in enumerate(
            [(b, {"acc": 0.5 + i / 9, "loss": 1.0}) for b in (0.1, 0.2, 0.3) for i in (0, 1)]
        )
    ]
    manifest = {"config": "c.py", "sweep": None, "base": config, "runs": [{"id": "r0", "overrides": {"seed": 0}}]}
    whole = {"config.json": config, "result.json": {"metrics": {"acc": 0.5}, "steps": 4}, "sweep.json": manifest}
    found = {name: [json.dumps(value).encode()] for name, value in whole.items()}
    notes = json.dumps({"stage": "sft", "step": 2, "leaves": {"x": [[2], "float32"]}, "manifest": True}).encode()
    found["config.json"].append(configs.to_json(configs.load("configs/dpo_hh.py:smoke")).encode())
    files = {"checksum": "crc32", "files": {"notes/metadata": [len(notes), zlib.crc32(notes)]}}
    saved = {"notes/metadata": notes, "manifest.json": json.dumps(files).encode()}
    found |= {f"checkpoints/00000002/{name}": [text] for name, text in saved.items()}
    return found | {"metrics.jsonl": [_lines(rows)], "results.jsonl": [_lines(cells)]}


def tokenizers() -> dict[str, list[bytes]]:
    """Small ``tokenizer.json`` files of the four models, and the files that stand beside one."""
    import tokenizers as hf

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = [*special, *"abcdefgh", "Ġ", "▁", "##a", "ab"]
    vocab = {letter: i for i, letter in enumerate(letters)}
    unigram = [(letter, -float(i)) for i, letter in enumerate(letters)]
    pre, norm = hf.pre_tokenizers, hf.normalizers
    parts = [
        (hf.models.BPE(vocab, [("a", "b")], unk_token="<unk>"), pre.ByteLevel(), norm.NFC(), hf.decoders.ByteLevel()),
        (hf.models.BPE(vocab, [("a", "b")], byte_fallback=True), pre.Split(hf.Regex(r"\s+|\w+"), "isolated"),
         norm.Replace(" ", "▁"), hf.decoders.Fuse()),
        (hf.models.WordPiece(vocab, unk_token="<unk>"), pre.BertPreTokenizer(), norm.BertNormalizer(),
         hf.decoders.WordPiece()),
        (hf.models.Unigram(unigram, unk_id=3), pre.Metaspace(), norm.Prepend("▁"), hf.decoders.Metaspace()),
        (hf.models.WordLevel(vocab, unk_token="<unk>"), pre.Sequence([pre.Whitespace(), pre.Digits()]),
         norm.Sequence([norm.Lowercase(), norm.Strip()]), hf.decoders.Sequence([])),
    ]  # fmt: skip
    files = []
    for model, pre_tokenizer, normalizer, decoder in parts:
        tokenizer = hf.Tokenizer(model)
        tokenizer.add_special_tokens(special)
        tokenizer.pre_tokenizer, tokenizer.normalizer, tokenizer.decoder = pre_tokenizer, normalizer, decoder
        tokenizer.post_processor = hf.processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 1), ("</s>", 2)])
        tokenizer.enable_truncation(8)
        tokenizer.enable_padding()
        files.append(tokenizer.to_str().encode())
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": TEMPLATES[0], "pad_token": None}
    beside = {"tokenizer_config.json": config, "generation_config.json": {"eos_token_id": [2, 1], "do_sample": True}}
    return {"tokenizer.json": files} | {name: [json.dumps(value).encode()] for name, value in beside.items()}


@functools.cache
def folder() -> Path:
    """A Hugging Face folder with an adapter beside its weights; the same bytes every time."""
    from rlx import models
    from rlx.models import huggingface, peft

    config, _ = huggingface.config_of(SIZES)
    params = models.build(SIZES).init(0)
    target = Path(tempfile.mkdtemp(prefix="rlx-fuzz-")) / "model"
    atexit.register(shutil.rmtree, target.parent, ignore_errors=True)
    huggingface.save(target, config, params, huggingface.describe(config), shard_bytes=2000)
    adapted = models.build({**SIZES, "lora": {"rank": 2, "targets": ["query"]}})
    peft.save_adapter(target, adapted, adapted.init(0))
    return target
