"""Digests of published data files, so that another copy of one is reported."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from eval.data.readers import first_file
from eval.data.text_file import lines_of

PUBLISHED = {
    "commonsense_qa": {
        "commonsense_qa/dev_rand_split.jsonl": "3210497fdaae614ac085d9eb873dd7f4d49b6f965a93adadc803e1229fd8a02a",
    },
    "winogrande": {
        "winogrande/dev.jsonl": "1aeac79cf46a3dcbe59a71ca7e5372a1490cde2b4ae2387dc56f00378104d2e8",
        "winogrande/train_s.jsonl": "959778b5a77819891ba9cbfc591925e94c853c6de3019992e292765176c69daf",
        "winogrande/train_xs.jsonl": "2f159f8216e54cdf835399ac10ebdd66699ca53934f4fc21a42d222512571dae",
    },
    "openbookqa": {
        "openbookqa/test.jsonl": "feb2bd9bfa6161dca4c44ce90e51e8cdada83eb5061407fcdc5005e44aaf2313",
    },
    "hellaswag": {
        "hellaswag/hellaswag_val.jsonl": "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
    },
    "arc_easy": {
        "arc_easy/ARC-Easy-Test.jsonl": "ce32a0774b4beb1977d2c6b16dda5dd2b24fdc9c7f506882c452678676bd09be",
        "arc_easy/ARC-Easy-Dev.jsonl": "f4364b808a68df6bf500ce1070fb0105d40cacd2391c210deb00ff83ba75d1f4",
    },
    "siqa": {
        "siqa/dev.jsonl": "d8128dfe60783a9971b954ca82dd57b87b05d5d40468876d51a8e1ad2c557465",
        "siqa/dev-labels.lst": "2d882ff71969d3980d37dd07aecdf9093c6e63e27c670f3a203bcf3b9b74bc05",
    },
    "gsm8k": {
        "gsm8k/test.jsonl": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        "gsm8k/train.jsonl": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    },
    "gsm8k_cot": {
        "gsm8k/test.jsonl": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    },
    "mmlu_pro": {
        "mmlu_pro/data/test-00000-of-00001.parquet": "0e24a191921c2f453518a537a8b2117bd137e7714d4ef1565e9ba06c1ecb9ad8",
    },
    "humaneval": {
        "humaneval/openai_humaneval/test-00000-of-00001.parquet": (
            "2f2871a15fbc95b6c683043359f4ed8e144c5a1c4f24f25f66bc51f598dfcfb6"
        ),
    },
    "mbpp": {
        "mbpp/mbpp.jsonl": "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
    },
}
"""Per task, sha256 of files under ``--data`` as they were published, unpacked. Not every publisher's are known."""


def changed_files(task: str, data: Path | None, folders: Sequence[str] = ()) -> list[str]:
    """A line for each of the task's files under ``data`` that is not the published one; such numbers may differ.

    Args:
        folders: where the task's files may lie besides the folder with its name (``MultipleChoice.folders``).
    """
    if data is None:
        return []
    lines = []
    for name, published in PUBLISHED.get(task, {}).items():
        path = first_file(data, name, *(f"{folder}/{Path(name).name}" for folder in folders))
        if path is not None:
            found = file_sha256(path)
            if found != published:
                lines.append(f"{path} is not the published file: sha256 {found[:12]}… instead of {published[:12]}…")
    return lines


def file_sha256(path: Path) -> str:
    """sha256 of a file, unpacked if it is gzipped.

    Raises:
        UserError: as ``lines_of``.
    """
    digest = hashlib.sha256()
    for line in lines_of(path):
        digest.update(line)
    return digest.hexdigest()
