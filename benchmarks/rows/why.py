"""Why rows fall short: reasons found with a profiler or by trying, without figures.

The figures come from runs. A reason is removed when it no longer holds.
"""

from __future__ import annotations

UNKNOWN = "not profiled yet"

_SECOND_CORE = "Two threads and the rest of the machine need the same two cores: CPU per operation against one thread shows whether the threads slow each other down"
_LOAD_GENERATOR = "The load generator needs one of the two cores"

_KERNEL = "The kernel takes more than four fifths of the time, as it does of the floor's; of the rest the interpreter takes two thirds"

WHY = {
    "echo_protocol": _KERNEL + ", for the calls of `data_received` and `write`",
    "echo_protocol_1000": (
        _KERNEL
        + ". With so many connections the data of each must come into the cache again, most of it in the kernel"
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
        "Nine tenths of the time is the kernel's, most of it two copies of every byte: the figure equals the floor's within the noise of the runs"
    ),
    "echo_100k_streams": "Copies in the kernel take most of the time; uvloop's figure has the same part",
    "echo_sock": (
        "Three fifths of the time is the kernel's, a fifth the interpreter's: on 3.13 `await` gets the result of anything except a coroutine as a StopIteration. The rest is many small costs"
    ),
    "unix_protocol": (
        "The kernel's part is smaller than over TCP, so the interpreter's weighs more. Passed descriptors end a read before the stream is drained, which only recvmsg shows; it costs more than the floor's recv"
    ),
    "udp_echo": "The figure equals the floor's within the noise of the runs; the floor too receives and sends batches in one call",
    "connect": (
        "Two thirds of the time is the kernel's, a fifth the interpreter's: the protocol, the transport and the calls of a"
        " connection's life. Leaving out the epoll_ctl that removes a socket before it is closed would save little and risk more: a descriptor that a child shares would stay registered"
    ),
    "http": "Three quarters of the time is the kernel's; most of the rest is httptools and the Python code it calls back",
    "tls_echo": (
        "OpenSSL's part and the kernel's are the same for all loops; in quiet runs the target is reached, and aiofastnet is behind"
    ),
    "tls_echo_64k": "OpenSSL's part and the kernel's are the same for all loops",
    "tls_echo_64k_rustls": "Both libraries spend their time in AES, which is equally fast in both",
    "subprocess_spawn": "Nearly all of the time is the kernel's, which makes the child; other runs show the opposite order",
    "threadsafe_burst_apart": "Equal within the noise of the runs",
    "pool_1ms": "A job of a millisecond is the row's own work: all loops are equal within the noise of the runs",
    "call_soon_burst": (
        "Four fifths of the time is the interpreter's: the row's own loop, the call of the method, contexts, the callback. Even without tokioloop's part the target would be missed"
    ),
    "timer_cancel": (
        "Two thirds of the time is the interpreter's, a tenth the clock's; most of tokioloop's part is the memory of many handles"
    ),
    "timer_fire": "Seven tenths of the time is the interpreter's; a third of tokioloop's part is the heap",
    "sleep0_1": "Nineteen twentieths of the time is the interpreter's: the coroutine of `asyncio.sleep` and the task's own",
    "sleep0_100": "Nineteen twentieths of the time is the interpreter's: the coroutine of `asyncio.sleep` and the task's own",
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
        " callbacks take twice as much altogether, so five times is out of reach while the interpreter's part stays the same"
    ),
    "pool_10us": "The producer needs the same two cores as the workers",
    "pool_await_1ms": "A job of a millisecond is the row's own work: all loops are equal within the noise of the runs",
    "echo_protocol@2": _LOAD_GENERATOR,
    "http@2": _LOAD_GENERATOR,
    "tls_echo@2": _LOAD_GENERATOR,
}


def why(variant: str) -> str:
    """Why a variant falls short, as far as it is known."""
    return WHY.get(variant, UNKNOWN)
