"""The benchmarks, a file each. ``registry`` lists them, ``base`` says what one is."""
