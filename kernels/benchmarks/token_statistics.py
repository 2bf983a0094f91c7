"""Log-probability and entropy of given logits, with gradients: rlx beside JAX, PyTorch and TRL.

  PYTHONPATH=.:kernels python kernels/benchmarks/token_statistics.py [--shape NAME|N,D,V ...] [--dtype bfloat16]

All forms run in this process, in turn, on the same inputs. TB/s counts what must be moved: the logits once forward,
three times with the gradient. Errors are against float64 on some of the rows.
"""

from __future__ import annotations

import common
import forms
import forms_torch


def main(argv: list[str] | None = None) -> list[dict]:
    """Measures, prints and writes what the arguments ask for."""
    parser = common.arguments(__doc__ or "", [("bar-given", "float32"), ("bar-given-half", "bfloat16")])
    args = parser.parse_args(argv)
    return common.run(args, [*forms.of_jax(args.implementation), *forms_torch.GIVEN], given=True)


if __name__ == "__main__":
    main()
