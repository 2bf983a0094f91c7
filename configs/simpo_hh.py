r"""SFT, then SimPO, on the HH-RLHF pairs of ``configs/dpo_hh.py``: no reference policy, rewards per token, a margin.

  python -m rlx.train --config=configs/simpo_hh.py --workdir=runs/simpo_hh \
      --config.data.path=harmless_base_test_filtered.jsonl.gz

beta and gamma are those of the paper's Llama-3 Base runs (beta 2, gamma/beta 0.5). Read ``reward_accuracy`` beside the
one of ``configs/dpo_hh.py``: its reward is the log-probability itself, so it starts where the SFT policy stands and
not at a tie.

Meng et al., *SimPO*, arXiv:2405.14734. ``:smoke`` takes seconds and needs no data.
"""

from pathlib import Path

from rlx.config import load, override


def get_config(arg=None):
    """``smoke`` shrinks the run to seconds, on generated data."""
    base = str(Path(__file__).with_name("dpo_hh.py"))
    config = load(base if arg is None else f"{base}:{arg}")
    return override(config, {"method": {"name": "simpo", "beta": 2.0, "gamma": 1.0}})
