"""Requests to results, on a backend of a few calls."""
