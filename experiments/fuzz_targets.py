"""What reads the inputs that :mod:`experiments.fuzz` mutates: a function per kind, of a variant and its content."""

from __future__ import annotations

import contextlib
import functools
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from experiments import fuzz_seeds as seeds
from experiments.fuzz_mutations import mutate
from rlx import config as configs
from rlx.data import chat, sources, tokenizers
from rlx.data.encode import Lengths, collate, encode
from rlx.data.formats import Parser
from rlx.data.rows import BadRow
from rlx.errors import UserError

USAGE = "--config=FILE --workdir=DIR [--list]"
Seeds = dict[str, list[bytes]]


def read_rows(variant: str, content: bytes, folder: Path) -> None:
    """A JSONL file, its records and their tokens."""
    kind, _, mode = variant.partition(",")
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    arrays = {"rewards": "rewards", "strengths": "strengths"} if kind == "arrays" else {}
    kind = "pairs" if kind == "arrays" else kind
    parser = Parser("auto", vocab_size=259, arrays=arrays, chat=_template())
    if mode == "tfds":
        from rlx.data.tfds_builders import prepare_jsonl

        try:
            source: Any = prepare_jsonl(path, folder / "cache", parser, kind=kind, skip=True)
            records = [source[i] for i in range(len(source))]
        finally:
            shutil.rmtree(folder / "cache", ignore_errors=True)
    else:
        rows = sources.Rows(sources.jsonl_rows(path), parser, kind, skip=mode == "skip", limit=None, origin=str(path))
        records = sources.MemorySource(rows).records
    longest = max(1, *(len(record.responses) for record in records)) if records else 1
    lengths, byte = Lengths(8, 8, longest), tokenizers.ByteTokenizer()
    collate([encode(record, byte, lengths) for record in records], np.arange(len(records)), byte, lengths)


@functools.cache
def _template() -> chat.ChatTemplate:
    return chat.ChatTemplate(seeds.TEMPLATES[0], {"bos_token": "<s>", "eos_token": "</s>"})


def read_folder(variant: str, content: bytes, folder: Path) -> None:
    """A Hugging Face folder one of whose files has been changed: its weights, or its adapter."""
    from rlx import models
    from rlx.models import huggingface, peft

    with _changed(seeds.folder(), folder / "model", variant, content) as own:
        if variant.startswith("adapter"):
            settings = peft.read_settings(own)
            model = models.build({**seeds.SIZES, "lora": settings})
            peft.load_adapter(own, model, model.init(0))
            return
        model = huggingface.build(str(own))
        assert model.pretrained is not None
        model.pretrained(None)


def read_tokenizer(variant: str, content: bytes, folder: Path) -> None:
    """A tokenizer's folder: load it, encode, decode, look for a template."""
    own = folder / "tokenizer"
    own.mkdir(exist_ok=True)
    valid = seeds.tokenizers()
    for name in valid:
        (own / name).unlink(missing_ok=True)
    for name, text in {"tokenizer.json": valid["tokenizer.json"][0], variant: content}.items():
        (own / name).write_bytes(text)
    named = {"bos": "<s>", "pad": "<pad>"} | ({} if variant == tokenizers.GENERATION else {"eos": "</s>"})
    tokenizer = tokenizers.build({"name": "hf", "path": str(own), **named})
    for text in ("", "ab cd\n<s>é", "a" * 300, "\0🦙 \u3000x"):
        tokenizer.decode(tokenizer.encode(text))
        tokenizer.special_in(text)  # type: ignore[attr-defined]
    chat.find("auto", tokenizer)


class _Special:
    special_texts = {"bos_token": "<s>", "eos_token": "</s>"}


def read_template(variant: str, content: bytes, folder: Path) -> None:
    """A chat template, and two conversations."""
    path = folder / "own.jinja"
    path.write_bytes(content)
    template = chat.find(str(path), _Special())
    assert template is not None
    template.render([("user", "Hi <b>"), ("assistant", "")], add_generation_prompt=True)
    template.split([("user", "Hi"), ("assistant", "yes")])


def read_overrides(variant: str, content: bytes, folder: Path) -> None:
    """A command line: its config, that config as JSON and back, and everything that is built of it."""
    from rlx.train.assemble import assemble

    argv = [part for part in content.decode("utf-8", "surrogateescape").split("\n") if part]
    _, overrides = configs.parse_options([f"--config={variant}", "--workdir=w", *argv], USAGE)
    config = configs.override(_config(variant), overrides, parse=True)
    again = configs.from_json(configs.to_json(config))
    configs.describe(configs.diff(_config(variant), again))
    configs.config_hash(config)
    assemble(config)


@functools.cache
def _config(spec: str) -> Any:
    return configs.load(spec)


def read_results(variant: str, content: bytes, folder: Path) -> None:
    """Files of a run or a sweep: the tables that a report makes of them; one picture of a hundred is drawn."""
    from rlx.report import plots, run_report, sweep_report
    from rlx.report.rows import read_json
    from rlx.sweep.plan import read_manifest
    from rlx.train import restore
    from rlx.train.checkpoint import Checkpoints

    with _changed(_run(folder), folder / "run", variant, content) as own, contextlib.ExitStack() as stack:
        if zlib.crc32(content + b"?") % 100:
            for name in ("curves", "cells", "save"):
                stack.enter_context(mock.patch.object(plots, name, _no_picture))
        if variant == "results.jsonl":
            sweep_report.write_sweep_report(own)
        elif variant == "result.json":
            read_json(own / variant)
        elif variant.startswith("checkpoints"):
            Checkpoints(own / "checkpoints").notes(2)
        elif variant == "sweep.json":
            read_manifest(own / variant)
        elif variant == "config.json" and zlib.crc32(content) % 2:
            restore.assemble_run(own)
        else:
            run_report.write_report(own)
            run_report.compare([own, _run(folder)])
            restore.read_config(own)


def _no_picture(*args: Any, **kwargs: Any) -> None:
    for value in args:
        if str(value).endswith(".png"):
            Path(value).touch()


def _run(folder: Path) -> Path:
    """The files of a run as they should be."""
    whole = folder / "whole"
    if not whole.exists():
        whole.mkdir()
        for name, contents in seeds.results().items():
            (whole / name).parent.mkdir(parents=True, exist_ok=True)
            (whole / name).write_bytes(contents[0])
    return whole


@contextlib.contextmanager
def _changed(whole: Path, target: Path, name: str, content: bytes) -> Iterator[Path]:
    """A copy of a folder with another file in it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(whole, target)
    (target / name).write_bytes(content)
    yield target


def files_of_folder() -> Seeds:
    """The files of a Hugging Face folder."""
    return {file.name: [file.read_bytes()] for file in sorted(seeds.folder().iterdir())}


def header(content: bytes, rng: Random, others: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """A mutation of a safetensors file, mostly of its header, which then keeps its length right."""
    size = int.from_bytes(content[:8], "little")
    if content[:1] == b"{" or size > len(content) or rng.random() < 0.3:
        return mutate(content, rng, others)
    text = mutate(content[8 : 8 + size], rng, others)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


Mutation = Callable[[bytes, Random, list[bytes], tuple[bytes, ...]], bytes]
KINDS: dict[str, tuple[int, Callable[[str, bytes, Path], None], Callable[[], Seeds], Mutation, tuple[bytes, ...]]] = {
    # share of the cases, reader, seeds, mutation, words
    "rows": (30, read_rows, seeds.rows, mutate, ()),
    "headers": (20, read_folder, files_of_folder, header, ()),
    "overrides": (20, read_overrides, seeds.overrides,
                  mutate, seeds.LITERALS),
    "tokenizers": (15, read_tokenizer, seeds.tokenizers, mutate, ()),
    "templates": (5, read_template, lambda: {"own.jinja": [text.encode() for text in seeds.TEMPLATES]}, mutate,
                  tuple(seeds.WORDS.encode().split(b"|"))),
    "results": (10, read_results, seeds.results, mutate, ()),
}  # fmt: skip


@functools.cache
def seeds_of(kind: str) -> Seeds:
    """The valid inputs of a kind."""
    return KINDS[kind][2]()


def case(kind: str, seed: int, number: int) -> tuple[str, bytes]:
    """The variant and the content of a case: a pure function of its name."""
    rng = Random(f"{seed}/{kind}/{number}")
    found = seeds_of(kind)
    variant = list(found)[number % len(found)]
    content = rng.choice(found[variant])
    if kind == "overrides":  # a few options at a time, each with its value in reach
        lines = content.split(b"\n")
        content = b"\n".join(rng.sample(lines, rng.choice((1, 1, 2, 4))))
        if rng.random() < 0.5:
            name, _, _ = content.partition(b"=")
            content = name + b"=" + rng.choice(seeds.LITERALS)
            return variant, content
    others = [text for texts in found.values() for text in texts]
    return variant, KINDS[kind][3](content, rng, others, KINDS[kind][4])


def judge(kind: str, variant: str, content: bytes, folder: Path) -> tuple[str, str]:
    """Outcome (accepted, refused, or what it should not have been) and message of a case."""
    try:
        KINDS[kind][1](variant, content, folder)
    except (UserError, BadRow) as error:
        said = str(error)
        fits = said.strip() and len(said.splitlines()) == 1 and len(said) < 2000 and "Traceback" not in said
        return ("refused" if fits else "unreadable"), said[:3000]
    return "accepted", ""
