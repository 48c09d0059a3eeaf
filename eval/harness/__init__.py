"""Tasks of lm-evaluation-harness on this engine, and what becomes of their answers in a run."""
