"""A run on disk: header, predictions, samples, report."""
