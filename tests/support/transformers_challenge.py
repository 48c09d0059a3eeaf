"""What ``docs/submission/run_challenge.py`` replaces: the same four sections on transformers' own pipeline."""

import json
import sys

import torch
from transformers import pipeline

model_path, data_path = sys.argv[1:]
pipe = pipeline("text-generation", model=model_path, dtype=torch.float32, device="cpu")
with open(data_path, encoding="utf-8") as lines:  # noqa: PTH123
    rows = [json.loads(line) for line in lines]
outs = pipe([row["message"] for row in rows], max_new_tokens=500, return_full_text=False, do_sample=False)
for out in outs:
    print(out[0]["generated_text"].lstrip().replace("\n", ""))
