"""Log-probability and entropy of a head, with gradients: rlx beside JAX, tokamax, PyTorch, TRL, Liger and CCE.

  PYTHONPATH=.:kernels python kernels/benchmarks/linear_token_statistics.py [--shape NAME|N,D,V ...] [--dtype bfloat16]

All forms run in this process, in turn, on the same inputs. TFLOP/s counts 2 NDV forward and 6 NDV with gradients,
whatever a form computes again. Errors are against float64 on some of the rows.
"""

from __future__ import annotations

import functools

import common
import forms
import forms_torch
from forms import Form

TOKAMAX = [
    Form(f"tokamax {name} (logp only)", functools.partial(forms.tokamax, name)) for name in ("xla", "chunked_xla")
]


def main(argv: list[str] | None = None) -> list[dict]:
    """Measures, prints and writes what the arguments ask for."""
    parser = common.arguments(__doc__ or "", [("bar-head", "float32")])
    args = parser.parse_args(argv)
    return common.run(args, [*forms.of_jax(args.implementation), *TOKAMAX, *forms_torch.HEAD], given=False)


if __name__ == "__main__":
    main()
