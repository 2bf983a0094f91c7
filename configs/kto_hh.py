r"""SFT, then KTO, on the HH-RLHF pairs of ``configs/dpo_hh.py``, taken apart into desirable and undesirable responses.

  python -m rlx.train --config=configs/kto_hh.py --workdir=runs/kto_hh \
      --config.data.path=harmless_base_test_filtered.jsonl.gz

Every pair gives two examples that need not meet in a batch. The reference point is estimated from the mismatched pairs
of the batch, so the reference policy runs in every step. There is no ``reward_accuracy``, since nothing is paired: read
``chosen_reward`` against ``rejected_reward`` on the held-out examples.

Ethayarajh et al., *KTO*, arXiv:2402.01306. ``:smoke`` takes seconds and needs no data.
"""

from pathlib import Path

from rlx.config import load, override


def get_config(arg=None):
    """``smoke`` shrinks the run to seconds, on generated data."""
    base = str(Path(__file__).with_name("dpo_hh.py"))
    config = load(base if arg is None else f"{base}:{arg}")
    return override(config, {"method": {"name": "kto", "beta": 0.1}, "reference": "on_the_fly"})
