r"""A Bradley-Terry reward model on the HH-RLHF pairs of ``configs/dpo_hh.py``, after SFT on the chosen responses.

  python -m rlx.train --config=configs/reward_hh.py --workdir=runs/reward_hh \
      --config.data.path=harmless_base_test_filtered.jsonl.gz

A scalar head on the last token of a response is its reward. ``reward_accuracy`` on held-out pairs stands near 0.5: the
model is as small as that of ``configs/dpo_hh.py``, the run shows the way and not the result.

Bradley and Terry, 1952; Ouyang et al., *InstructGPT*, arXiv:2203.02155. ``:smoke`` takes seconds and needs no data.
"""

from pathlib import Path

from ml_collections import ConfigDict

from rlx.config import load


def get_config(arg=None):
    """``smoke`` shrinks the run to seconds, on generated data."""
    base = str(Path(__file__).with_name("dpo_hh.py"))
    config = load(base if arg is None else f"{base}:{arg}").to_dict()
    config["model"]["head"] = "scalar"
    config["stages"], config["reward"] = ("sft", "reward"), config.pop("preference")
    config["method"] = {"name": "bradley_terry_rm"}
    return ConfigDict(config)
