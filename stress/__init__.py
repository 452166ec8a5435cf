"""Long, random, concurrent use of an event loop: ``python -m stress run --help``.

Each scenario is one file in ``stress/scenarios`` with a function ``scenario(run)``: it works until ``run.over()``, checks
all it did, and returns counts. What it did not clean up (memory, descriptors, threads) fails it as well.
"""
