"""Real programs on TokioLoop, installed from their packages, talking to each other and to real servers over loopback.

`make test-compat` installs what is missing and runs them; `python -m pytest tests/compat --loop asyncio` runs the same tests
on asyncio's own loop, which shows what they ask of any loop.
"""
