"""tokioloop.runtime: settings, the environment, figures, and what a forked child gets."""

import pytest

import tokioloop
from tests.loop.support import python

# Resolving a name that is not numeric is what needs the runtime.
START = """
import asyncio, os, sys, warnings
from pathlib import Path
import tokioloop
from tokioloop import runtime

def start():
    loop = tokioloop.TokioLoop()
    try:
        loop.run_until_complete(loop.getaddrinfo("localhost", 80))
    finally:
        loop.close()

def names():
    return [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]

def raises(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError("nothing was raised")

def in_child(work):
    warnings.simplefilter("ignore", DeprecationWarning)  # fork() in a process with threads is what is tested
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"worker_threads": 0}, ValueError),
        ({"worker_threads": -1}, ValueError),
        ({"worker_threads": 32768}, ValueError),
        ({"max_blocking_threads": 1 << 80}, ValueError),
        ({"max_blocking_threads": True}, TypeError),
        ({"resolver_threads": 0}, ValueError),
        ({"resolver_threads": 32768}, ValueError),
        ({"resolver_threads": "1"}, TypeError),
        ({"worker_threads": 2.0}, TypeError),
        ({"worker_threads": "2"}, TypeError),
        ({"thread_name": b"x"}, TypeError),
        ({"thread_name": ""}, ValueError),
        ({"thread_name": "a\0b"}, ValueError),
    ],
)
def test_nonsense_is_refused(arguments, error):
    with pytest.raises(error, match=f"^{next(iter(arguments))} must "):
        tokioloop.runtime.configure(**arguments)


def test_settings_are_keywords_only():
    with pytest.raises(TypeError):
        tokioloop.runtime.configure(2)


def test_threads_have_the_name_and_the_number():
    python(
        START
        + """
assert runtime.metrics() == (False, 0, 0, 0, 0, 0, 0, 0, 0)
runtime.configure(worker_threads=7, thread_name="pond")
runtime.configure(worker_threads=3, max_blocking_threads=2)
assert not runtime.metrics().started
start()
found = runtime.metrics()
assert found.started and found.worker_threads == 3, found
assert found.blocking_threads == 1 and found.blocking_queue_depth == 0, found
# The workers may not have named themselves yet, but the one that answered has.
assert names().count("pond") >= 1, names()
assert raises(RuntimeError, lambda: runtime.configure(worker_threads=1)).startswith("the runtime is running")
assert raises(RuntimeError, runtime.configure).startswith("the runtime is running")
"""
    )


def test_no_more_threads_for_names_than_were_allowed():
    python(
        START
        + """
runtime.configure(resolver_threads=1, worker_threads=1)
loop = tokioloop.TokioLoop()

async def main():
    await asyncio.gather(*(loop.getaddrinfo("localhost", port) for port in range(100)))

loop.run_until_complete(main())
loop.close()
assert runtime.metrics().blocking_threads == 1, runtime.metrics()
"""
    )


def test_the_environment():
    python(
        START + "start(); assert runtime.metrics().worker_threads == 2 and 'brook' in names(), names()",
        TOKIOLOOP_WORKER_THREADS="2",
        TOKIOLOOP_MAX_BLOCKING_THREADS="",
        TOKIOLOOP_THREAD_NAME="brook",
    )


def test_arguments_come_before_the_environment():
    python(
        START
        + "runtime.configure(worker_threads=1, thread_name='pond'); start()\n"
        + "assert runtime.metrics().worker_threads == 1 and 'pond' in names(), names()",
        TOKIOLOOP_WORKER_THREADS="many",
        TOKIOLOOP_THREAD_NAME="brook",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKIOLOOP_WORKER_THREADS", "many"),
        ("TOKIOLOOP_WORKER_THREADS", "0"),
        ("TOKIOLOOP_MAX_BLOCKING_THREADS", "-1"),
        ("TOKIOLOOP_MAX_BLOCKING_THREADS", "99999"),
        ("TOKIOLOOP_RESOLVER_THREADS", "0"),
    ],
)
def test_a_bad_environment_is_reported_at_the_first_use(name, value):
    done = python(
        START + "print(raises(ValueError, start)); assert not runtime.metrics().started", **{name: value}
    )
    assert done.stdout.startswith(f"{name} must be ")


def test_a_forked_child_starts_from_the_same_settings_and_may_change_them():
    python(
        START
        + """
runtime.configure(worker_threads=2, thread_name="pond")
start()

def same():
    assert not runtime.metrics().started
    start()
    assert runtime.metrics().worker_threads == 2 and "pond" in names(), names()

def other():
    runtime.configure(worker_threads=3)
    start()
    assert runtime.metrics().worker_threads == 3 and "pond" in names(), names()
    raises(RuntimeError, runtime.configure)

in_child(same)
in_child(other)
assert runtime.metrics().worker_threads == 2
"""
    )
