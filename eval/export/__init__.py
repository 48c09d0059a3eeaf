"""A run in lm-evaluation-harness's own files.

Knows neither lm_eval, which need not be installed, nor how a run is made.
"""
