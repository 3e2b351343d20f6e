"""Benchmarks: one file a claim; `python -m benchmarks` runs them all and rewrites the README's table."""
