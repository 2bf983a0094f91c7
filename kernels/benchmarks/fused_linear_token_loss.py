"""A loss of a head's tokens whose gradient is made on the way forward, beside those that compute the logits twice.

  PYTHONPATH=.:kernels python kernels/benchmarks/fused_linear_token_loss.py [--shape NAME|N,D,V ...] [--dtype bfloat16]

The loss is a weighted sum of log-probabilities and entropies whose weights are known beforehand. All forms run in this
process, in turn, on the same inputs. TFLOP/s counts 2 NDV forward and 6 NDV with gradients, what the fused loss takes.
"""

from __future__ import annotations

import common
import forms
from forms import Form


def main(argv: list[str] | None = None) -> list[dict]:
    """Measures, prints and writes what the arguments ask for."""
    args = common.arguments(__doc__ or "", [("bar-head", "float32")]).parse_args(argv)
    fused = Form("rlx fused loss", forms.Fused)
    return common.run(args, [fused, *forms.of_jax(args.implementation)], given=False)


if __name__ == "__main__":
    main()
