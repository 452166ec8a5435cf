"""Threads with a loop each, and work handed from loop to loop. Uses all but `_setup`."""


def __getattr__(name: str) -> object:
    # Pickles name this module, which these classes stood in before.
    if name not in ("PoolStats", "WorkerPool", "WorkerStats"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pool

    return getattr(pool, name)
