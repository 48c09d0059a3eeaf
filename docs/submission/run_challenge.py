"""The 2024 challenge's run in its four sections, on orin-run.

    python docs/submission/run_challenge.py MODEL.gguf DATA.jsonl

DATA has one {"message": [{"role", "content"}], "answer": ...} per line. The generated texts go to stdout, one per line;
the clock and the accuracy go to stderr.
"""

# Section 1: imports and arguments
import json
import sys
import time

from orin_runner import pipeline


def main() -> None:
    """Run the four sections."""
    model_path, data_path = sys.argv[1:]

    # Section 2: the model (not on the clock)
    pipe = pipeline("text-generation", model=model_path)

    # Section 3: data and inference (on the clock)
    started = time.perf_counter()
    with open(data_path, encoding="utf-8") as lines:  # noqa: PTH123
        rows = [json.loads(line) for line in lines]
    outs = list(
        pipe([row["message"] for row in rows], max_new_tokens=500, return_full_text=False, do_sample=False),
    )
    seconds = time.perf_counter() - started

    # Section 4: accuracy (not on the clock)
    right = 0
    for row, out in zip(rows, outs, strict=True):
        text = out[0]["generated_text"].lstrip().replace("\n", "")
        right += text == row["answer"]
        print(text)
    print(f"{right / len(rows):.4f} right, {seconds:.2f} s, {seconds / len(rows):.4f} s per item", file=sys.stderr)
    pipe.close()


if __name__ == "__main__":
    main()
