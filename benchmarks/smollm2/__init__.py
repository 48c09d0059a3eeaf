"""SmolLM2-135M-Instruct, expanded from the 4-bit file of a PyPI package: ``make smollm2``, and the whole result."""
