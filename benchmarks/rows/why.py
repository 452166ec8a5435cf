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

_KERNEL = "The kernel takes more than four fifths of the time, as it does of the floor's; of the rest the interpreter takes two thirds"

WHY = {
    "echo_protocol": _KERNEL + ", for the calls of `data_received` and `write`",
    "echo_protocol_1000": (
        _KERNEL
        + ". With so many connections each brings what belongs to it into the cache anew, in the kernel first of all"
    ),
    "echo_buffered": (
        "The row's protocol makes two calls and a slice per request; the interpreter takes more of the"
        " server's time than tokioloop"
    ),
    "echo_streams": (
        "Two thirds of the time is the kernel's. Of the rest the interpreter, which steps a task per request, takes more than"
        " half; tokioloop's part is the task's wake-up, the read, the write and the drain"
    ),
    "echo_100k": (
        "Nine tenths of the time is the kernel's, most of it two copies of every byte: the figure is the floor's within what the"
        " runs differ by"
    ),
    "echo_100k_streams": "Copies in the kernel take most of the time; uvloop's figure has the same in it",
    "echo_sock": (
        "Three fifths of the time is the kernel's, a fifth the interpreter's: on 3.13 `await` takes the result of anything but a"
        " coroutine as a StopIteration. The rest is spread thinly"
    ),
    "unix_protocol": (
        "The kernel's part is smaller than over TCP, so that the interpreter's weighs more. Passed descriptors end a read without"
        " the stream being drained, which only recvmsg tells; it costs more than the floor's recv"
    ),
    "udp_echo": "The figure is the floor's within what the runs differ by; the floor takes and sends batches in one call too",
    "connect": (
        "Two thirds of the time is the kernel's, a fifth the interpreter's: the protocol, the transport and the calls of a"
        " connection's life. The epoll_ctl that takes a socket out before it is closed would save less than it risks: a"
        " descriptor that a child shares would stay registered"
    ),
    "http": "Three quarters of the time is the kernel's; most of the rest is httptools and the Python code it calls back",
    "tls_echo": (
        "OpenSSL's part and the kernel's are the same for all who use it; in calm runs the target is reached, and aiofastnet is"
        " behind"
    ),
    "tls_echo_64k": "OpenSSL's part and the kernel's are the same for all who use it",
    "tls_echo_64k_rustls": "Both libraries spend their time in AES, which is as fast in one as in the other",
    "subprocess_spawn": "Nearly all of the time is the kernel's, which makes the child; other runs have the order turned round",
    "threadsafe_burst_apart": "Level within what the runs differ by",
    "pool_1ms": "A job of a millisecond is the row's own work: all loops are within what the runs differ by",
    "call_soon_burst": (
        "Four fifths of the time is the interpreter's: the row's own loop, the call of the method, contexts, the callback. With"
        " tokioloop's part gone altogether the target would still be missed"
    ),
    "timer_cancel": (
        "Two thirds of the time is the interpreter's, a tenth the clock's; most of tokioloop's part is memory that many handles"
        " take"
    ),
    "timer_fire": "Seven tenths of the time is the interpreter's; a third of tokioloop's part is the heap",
    "sleep0_1": "All but a twentieth of the time is the interpreter's: the coroutine of `asyncio.sleep` and the task's own",
    "sleep0_100": "All but a twentieth of the time is the interpreter's: the coroutine of `asyncio.sleep` and the task's own",
    "threadsafe_latency": "Most of the time is the kernel's: a write to an eventfd, a switch of threads, the end of an epoll_wait",
    "threadsafe_latency_apart": (
        "Most of the time is the kernel's: a write to an eventfd, a sleeping core that is woken, the end of an epoll_wait"
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
    "timer_fire@2": _SECOND_CORE,
    "threadsafe_burst": (
        "Seven tenths of the time is the interpreter's: two calls, a Handle, a context and another one where it runs. uvloop's"
        " callbacks take twice as much altogether, so that five times is out of reach while the interpreter's part is the same"
    ),
    "pool_10us": "The producer needs the same two cores as the workers",
    "pool_await_1ms": "A job of a millisecond is the row's own work: all loops are within what the runs differ by",
    "echo_protocol@2": _LOAD_GENERATOR,
    "http@2": _LOAD_GENERATOR,
    "tls_echo@2": _LOAD_GENERATOR,
}


def why(variant: str) -> str:
    """What stands in the way of a variant, as far as it is known."""
    return WHY.get(variant, UNKNOWN)
