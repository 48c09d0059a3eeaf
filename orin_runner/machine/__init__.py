"""What is here, what fits, and what it says while it runs."""
