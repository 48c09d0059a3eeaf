"""Token paths to decode batches. Knows no model."""
