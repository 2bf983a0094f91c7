r"""Does a step fit, before a pod is there to try it: training steps of 1B and 8B models compiled for 16 TPUs or 8 GPUs.

  python -m experiments.scale_plan [--full | --smoke] [--workdir=DIR] [--libtpu=FOLDER]
                                  [--models=llama_8b] [--topologies=v5e:4x4]

The whole step of DPO and of GRPO with a KL penalty (policy and reference forward, backward, AdamW with float32 moments,
float32 parameters, bfloat16 activations, layers recomputed, the reference held in bfloat16 by
``config.policies.reference.dtype``) is compiled ahead of time by the compiler of the accelerator, without one: it needs
``pip install rlx[tpu]``, or ``--libtpu`` names a folder that holds the package libtpu; and for
``--topologies=h200:1x1x8``, which is not in the default list, ``pip install rlx[cuda]`` and ptxas on the PATH. Meshes
are tried in order until the step fits: fsdp alone, then heads and vocabulary split over ``model``, positions over
``sequence``. Responses are drawn at another time, beside the state alone.

Sequences are of 512 prompt and 1536 response tokens, 16 pairs or 16 prompts with 8 responses to a step. In as many
micro-batches as it takes, a device works off one pair, or one response, at a time.

Bytes, and the collectives of a step, are the compiler's, for one device. ``estimate`` is arithmetic, not a measurement:
the larger of two lower bounds, operations of the model at the chip's peak, and bytes of the collectives at the rate of
its links, both from the vendor's data sheets. ``--full`` compiles every mesh, and the Qwen3 shape, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.frame import Frame, program, run
from experiments.ledger import Ledger
from rlx.errors import UserError
from rlx.report import plots, tables
from rlx.report.progress import Progress
from rlx.report.rows import write_atomically

GIB = 2**30


class Chip(NamedTuple):
    """GiB of memory that the compiler gives a program (of the GPU, all that there are); from the vendor's data sheet,
    dense bfloat16 operations a second and bytes a second over all links."""

    memory: float
    peak: float
    links: float


CHIPS = {
    "v5e": Chip(15.75, 197e12, 200e9),
    "v5p": Chip(95.74, 459e12, 600e9),
    "v6e": Chip(31.25, 918e12, 400e9),
    "h200": Chip(139.8, 989e12, 900e9),
}
_COMMON = {"num_kv_heads": 8, "dtype": "bfloat16", "param_dtype": "float32", "remat": "full", "scan_layers": True}
_COMMON |= {"attention_block": 512, "tie_embeddings": False}
MODELS: dict[str, dict[str, Any]] = {
    "llama_1b": _COMMON
    | {"vocab_size": 128256, "hidden_size": 2048, "num_layers": 16, "num_heads": 32, "head_dim": 64}
    | {"intermediate_size": 8192, "rope_theta": 5e5, "tie_embeddings": True},
    "llama_8b": _COMMON
    | {"vocab_size": 128256, "hidden_size": 4096, "num_layers": 32, "num_heads": 32, "head_dim": 128}
    | {"intermediate_size": 14336, "rope_theta": 5e5},
    "qwen3_8b": _COMMON
    | {"vocab_size": 151936, "hidden_size": 4096, "num_layers": 36, "num_heads": 32, "head_dim": 128}
    | {"intermediate_size": 12288, "rope_theta": 1e6, "qk_norm": True},
    "tiny": _COMMON
    | {"vocab_size": 512, "hidden_size": 256, "num_layers": 2, "num_heads": 8, "head_dim": 32, "num_kv_heads": 4}
    | {"intermediate_size": 512},
}
ADAPTERS = {"param_dtype": "bfloat16", "lora": {"rank": 16, "alpha": 32, "targets": "all-linear"}}
MODELS["llama_8b_lora"] = MODELS["llama_8b"] | ADAPTERS
"""Shapes as published: Llama 3.2 1B, Llama 3.1 8B, Qwen3 8B; ``tiny`` is that of the smoke test; ``llama_8b_lora`` has
a bfloat16 base and float32 adapters on every linear map."""
METHODS = {"dpo": (2, 2), "grpo": (8, 1)}
"""Name -> responses in a row, and how many of them a device works off at a time."""
MESHES = {
    16: ({"fsdp": 16}, {"fsdp": 8, "model": 2}, {"fsdp": 8, "sequence": 2}, {"fsdp": 4, "model": 4}),
    8: ({"fsdp": 8}, {"fsdp": 4, "model": 2}),
    4: ({"fsdp": 4}, {"fsdp": 2, "model": 2}),
}
"""Chips -> meshes in the order in which they are tried."""
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"models": "tiny", "topologies": "v5e:2x2", "prompt": 128, "response": 128, "rows": 4},
    "default": {"models": "llama_1b,llama_8b", "topologies": "v5e:4x4,v5p:2x2x4,v6e:4x4"},
    "full": {"models": "llama_1b,llama_8b,qwen3_8b", "topologies": "v5e:4x4,v5p:2x2x4,v6e:4x4"},
}
OF_THIS_MACHINE = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
KEYS = ("model", "method", "topology", "mesh")
UNSHOWN = ("chips", "parameters", "sequences", "compute_s", "links_s", "estimate_s", "compile_s")
"""What stands in ``metrics.jsonl`` and ``table.csv`` alone."""


def config(size: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the numbers; the options replace the size's lists.

    Raises:
      UserError: an unknown model or topology.
    """
    found = {"prompt": 512, "response": 1536, "rows": 16, **SIZES[size], "all_meshes": size == "full"}
    found |= {key: options[key] for key in ("models", "topologies") if options.get(key)}
    found |= {"libtpu": options.get("libtpu") or ""}
    for key, known in (("models", MODELS), ("topologies", CHIPS)):
        for name in found[key].split(","):
            if name.partition(":")[0] not in known:
                raise UserError(f"--{key}={found[key]}: unknown {name!r}. Known: {', '.join(known)}.")
    return found


def cases(c: Mapping[str, Any], ledger: Ledger) -> Iterator[dict[str, Any]]:
    """The cases in order; further meshes of a step only until one is known to fit."""
    for topology in c["topologies"].split(","):
        for model in c["models"].split(","):
            for method in METHODS:
                for mesh in MESHES[chips_of(topology)]:
                    name = {"model": model, "method": method, "topology": topology, "mesh": text_of(mesh)}
                    yield name | {"sizes": mesh}
                    row = next((row for row in ledger.rows if all(row[key] == name[key] for key in KEYS)), None)
                    if row and row["fits"] and not c["all_meshes"]:
                        break


def chips_of(topology: str) -> int:
    """
    >>> chips_of("v5p:2x2x4")
    16
    """
    count = 1
    for size in topology.partition(":")[2].split("x"):
        count *= int(size)
    return count


def text_of(mesh: Mapping[str, int]) -> str:
    """
    >>> text_of({"fsdp": 8, "sequence": 2})
    'fsdp 8 x sequence 2'
    """
    return " x ".join(f"{axis} {size}" for axis, size in mesh.items())


def job(c: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, Any]:
    """What the compiling process reads."""
    group, at_a_time = METHODS[case["method"]]
    shards = case["sizes"].get("data", 1) * case["sizes"].get("fsdp", 1)
    work = {key: c[key] for key in ("rows", "prompt", "response", "libtpu")} | {"group": group}
    work |= {"micro_batches": c["rows"] * group // (shards * at_a_time), "reference": "on the fly"}
    of_case = {"topology": case["topology"], "mesh": case["sizes"], "method": case["method"]}
    return work | of_case | {"model": MODELS[case["model"]]}


def compiled(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What the compiler says, in a process of its own; ``error`` where it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "case.json")
        path.write_text(json.dumps(wanted), encoding="utf-8")
        command = [sys.executable, "-m", "experiments.scale_plan_step", str(path)]
        own = {key: value for key, value in os.environ.items() if key not in OF_THIS_MACHINE}
        done = subprocess.run(command, capture_output=True, text=True, env=own)
    if done.returncode < 0:
        raise UserError(f"the compiling process was ended by signal {-done.returncode}: the same command goes on here.")
    line = next((line for line in done.stdout.splitlines() if line.startswith("@case ")), None)
    if line is not None:
        return json.loads(line.removeprefix("@case "))
    last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    if "libtpu" in done.stderr and "memory" not in last.lower():
        raise UserError(f"there is no compiler for TPUs ({last}): pip install 'rlx[tpu]', or name --libtpu=FOLDER.")
    return {"error": last[:300]}


def operations(model: Mapping[str, Any], sequences: int, prompt: int, response: int) -> float:
    """Multiplications and additions of the products of a step, those that are done twice included.

    A weight takes 2 operations a token forward, as much again where the layer is recomputed, 4 backward, and 2 of the
    reference; the head the same of response tokens; attention those of causal scores and their products with values.
    With adapters, whose own are left out, there are 2 backward: the base has no gradient.
    """
    length, width, heads = prompt + response, model["hidden_size"], model["num_heads"] * model["head_dim"]
    kv = model["num_kv_heads"] * model["head_dim"]
    layer = width * (2 * heads + 2 * kv) + 3 * width * model["intermediate_size"]
    weights = model["num_layers"] * layer * length + width * model["vocab_size"] * response
    attention = model["num_layers"] * 2 * heads * length * length / 2
    return sequences * ((8 if model.get("lora") else 10) * weights + 12 * attention)


def row_of(c: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table."""
    row = {key: case[key] for key in KEYS} | {"chips": chips_of(case["topology"])}
    found = compiled(job(c, case))
    if "error" in found:
        return row | {"fits": False, **wanted_memory(found["error"])}
    chip, sizes = CHIPS[case["topology"].partition(":")[0]], found["bytes"]
    group, _ = METHODS[case["method"]]
    work = operations(MODELS[case["model"]], c["rows"] * group, c["prompt"], c["response"])
    moved = sum(size for _, size in found["collectives"].values())
    compute, links = work / row["chips"] / chip.peak, moved / chip.links
    row |= {"parameters": found["parameters"], "sequences": c["rows"] * group}
    row |= {"state_gib": sizes["arguments"] / GIB, "temporary_gib": (sizes["temporary"] + sizes["outputs"]) / GIB}
    row |= {"peak_gib": sum(sizes.values()) / GIB, "memory_gib": chip.memory}
    row |= {"fits": sum(sizes.values()) / GIB <= chip.memory}
    row |= {f"{kind}_gib": size / GIB for kind, (_, size) in found["collectives"].items()}
    row |= {"compute_s": compute, "links_s": links, "estimate_s": max(compute, links)}
    tokens = c["rows"] * group * (c["prompt"] + c["response"])
    return row | {"estimate_tokens_per_s": tokens / max(compute, links), "compile_s": found["compile_s"]}


def wanted_memory(error: str) -> dict[str, Any]:
    """What a TPU's compiler that has run out of memory says of it, or else its words.

    >>> wanted_memory("... Ran out of memory in memory space hbm. Used 15.79G of 15.75G hbm. Exceeded ...")
    {'peak_gib': 15.79, 'memory_gib': 15.75}
    """
    found = re.search(r"Used ([\d.]+)G of ([\d.]+)G hbm", error)
    return {"error": error} if found is None else {"peak_gib": float(found[1]), "memory_gib": float(found[2])}


def work(c: Mapping[str, Any], ledger: Ledger, folder: Path) -> str:
    """Compiles what is missing, and writes the table and the plot."""
    done: list[tuple[str, ...]] = []
    with Progress(len(list(cases({**c, "all_meshes": True}, ledger))), label="compiling", unit="case") as progress:
        for case in cases(c, ledger):
            if ledger.missing([case]):
                ledger.add(row_of(c, case))
            done.append(tuple(case[key] for key in KEYS))
            progress.update(len(done), f"{case['model']} {case['method']} {case['topology']} {case['mesh']}")
    rows = [row for row in ledger.rows if tuple(row[key] for key in KEYS) in done]
    text = tables.markdown([{name: value for name, value in row.items() if name not in UNSHOWN} for row in rows])
    write_atomically(folder / "table.md", text + "\n")
    write_atomically(folder / "table.csv", tables.csv_text(rows))
    plot(rows, folder / "plot.png")
    return text


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Memory of a device by case, as a share of what the chip has."""
    rows = [row for row in rows if "peak_gib" in row]
    figure, (axis,) = plots.blank(1, "memory of one device: state, temporary", height=1.4 + 0.32 * len(rows))
    for i, row in enumerate(reversed(rows)):
        state, whole = row.get("state_gib", 0.0), row["peak_gib"]  # a compiler that has given up names the whole alone
        axis.barh(i, state / row["memory_gib"], color="tab:blue")
        axis.barh(i, (whole - state) / row["memory_gib"], left=state / row["memory_gib"], color="tab:orange")
        text = f"{whole:.1f} of {row['memory_gib']:.1f} GiB"
        axis.text(max(whole / row["memory_gib"], 1) + 0.02, i, text, va="center", fontsize=7)
    axis.axvline(1, color="black")
    axis.set_yticks(range(len(rows)), [" ".join(row[key] for key in KEYS) for row in reversed(rows)], fontsize=7)
    axis.set_xlim(0, 1.6)
    axis.set_xlabel("share of what there is")
    plots.save(figure, path)


FRAME = Frame(name="scale_plan", usage=__doc__ or "", keys=KEYS, config=config, work=work)


def main() -> None:
    run(FRAME)


if __name__ == "__main__":
    program(main)
