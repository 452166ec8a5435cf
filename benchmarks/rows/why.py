"""What stands in the way of the rows that fall short: reasons, found with a profiler or by trying, and no figures.

A row's figures come from a run alone. A reason is taken out when it no longer holds.
"""

from __future__ import annotations

UNKNOWN = "not profiled yet"

_SECOND_CORE = (
    "Two threads and the rest of the machine need the same two cores: CPU per operation against one thread tells whether"
    " the threads take anything from each other"
)
_LOAD_GENERATOR = "The load generator needs one of the two cores"

WHY = {
    "echo_buffered": (
        "The row's protocol makes two calls and a slice per request; the interpreter takes more of the"
        " server's time than tokioloop"
    ),
    "echo_sock": (
        "Three fifths of the time is the kernel's, a fifth the interpreter's: on 3.13 `await` takes the result of anything but a"
        " coroutine as a StopIteration. The rest is spread thinly"
    ),
    "connect": (
        "Half of the time is the kernel's, a tenth the collector's. Left: the epoll_ctl that takes a socket out that is about"
        " to be closed"
    ),
    "call_soon_burst@2": (
        "uvloop scales here too. On 3.14t a function that both threads run has its references counted by both"
    ),
    "gather_100k": (
        "Much of the time is the collector, which walks all tasks, coroutines and contexts; the rest is `gather()`'s own"
        " Python code"
    ),
    "gather_100k@2": "The collector stops both threads",
    "sleep0_100@2": _SECOND_CORE + ". On 3.14t both threads count the references of `asyncio.sleep`",
    "create_task@2": _SECOND_CORE,
    "future_wakeup@2": _SECOND_CORE,
    "threadsafe_burst": (
        "The largest part of the time is the interpreter making the Handle, the context and the calls in two threads; tokioloop,"
        " the C allocator and the kernel share the rest. Left: one allocation per post instead of two"
    ),
    "pool_10us": "The producer needs the same two cores as the workers",
    "echo_protocol@2": _LOAD_GENERATOR,
    "http@2": _LOAD_GENERATOR,
    "tls_echo@2": _LOAD_GENERATOR,
}


def why(variant: str) -> str:
    """What stands in the way of a variant, as far as it is known."""
    return WHY.get(variant, UNKNOWN)
