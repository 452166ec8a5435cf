"""Threads with a loop each, and work handed from loop to loop. Uses all other folders except `_setup`."""


def __getattr__(name: str) -> object:
    # Older pickles name this module, in which these classes were defined.
    if name not in ("PoolStats", "WorkerPool", "WorkerStats"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pool

    return getattr(pool, name)
