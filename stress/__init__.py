"""Long, random, concurrent use of an event loop: ``python -m stress run --help``.

Each scenario is one file in ``stress/scenarios`` with a function ``scenario(run)``: it works until ``run.over()``, checks all it did,
counts it with ``run.tally()``, and returns counts. It raises ``NotOffered`` for what a loop does not offer. It runs in a process of its own
(``child.py``), which its parent watches (``parent.py``). What it does not clean up (``left.py``) fails it too.
"""
