"""Benchmarks of tokioloop beside its peers. `python -m benchmarks --help` shows how to run them."""
