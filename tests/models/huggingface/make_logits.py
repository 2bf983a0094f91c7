"""Makes ``logits.json`` with torch and transformers, which the tests do not need.

python -m tests.models.huggingface.make_logits
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from tests.models.huggingface.tiny import RAW, numbers, texts, write_config


def logits(raw):
    """Of the model of ``transformers``, at the real tokens."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder), raw)
        config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(numbers(name, tuple(parameter.shape))))
        tokens, valid = (torch.from_numpy(x) for x in texts())
        positions = (valid.cumsum(-1) - 1).clamp(min=0)
        found = model(tokens.long(), attention_mask=valid.long(), position_ids=positions).logits
    return found.numpy()[texts()[1]]


if __name__ == "__main__":
    found = {
        name: [[float(f"{x:.7g}") for x in row] for row in logits(raw).astype(np.float64)] for name, raw in RAW.items()
    }
    file = Path(__file__).with_name("logits.json")
    file.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    print(file.stat().st_size, "bytes", {name: round(float(np.abs(x).max()), 2) for name, x in found.items()})
