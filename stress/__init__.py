"""Long, random, concurrent use of an event loop: ``python -m stress run --help``.

Each scenario is one file in ``stress/scenarios`` with a function ``scenario(run)``: it works until ``run.over()``, checks all it did,
counts it by ``run.tally()``, and returns counts; what a loop does not offer it says by ``NotOffered``. It runs in a process of its own
(``child.py``), which its parent watches (``parent.py``); what it did not clean up (``left.py``) fails it as well.
"""
