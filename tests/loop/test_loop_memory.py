"""What a loop that has run takes in memory, counted by the allocators: the same in every run, and no more than it was."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, gc, sys, threading
import tokioloop

class Figures(ctypes.Structure):
    # In the order of malloc.h.
    _fields_ = [(name, ctypes.c_size_t)
                for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

library = ctypes.CDLL(None)
if not hasattr(library, "mallinfo2"):
    raise SystemExit(3)
library.mallinfo2.restype = Figures

def in_use():
    figures = library.mallinfo2()
    return figures.uordblks + figures.hblkhd

def loop_that_ran():
    loop = tokioloop.TokioLoop()
    loop.call_soon(loop.stop)
    loop.run_forever()
    return loop

def measure():
    for _ in range(20):
        loop_that_ran().close()
    count = 300
    kept = [None] * count
    gc.collect()
    heap, blocks = in_use(), sys.getallocatedblocks()
    for index in range(count):
        kept[index] = loop_that_ran()
    print((in_use() - heap) // count, round((sys.getallocatedblocks() - blocks) / count))
    for loop in kept:
        loop.close()

if sys.argv[1] == "main":
    measure()
else:
    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
"""

# Bytes of the C heap. On the main thread a loop waits for signals, so that it has an epoll instance from its first run on. The rest
# of what allocations take is the loop object, in Python's memory: 640 bytes with what mimalloc rounds up.
MOST = {"main": 800, "thread": 400}
OBJECT = 640
# The loop, its entry in the registry and a Handle that is kept for the next call.
BLOCKS = 3


@pytest.mark.parametrize("where", MOST)
def test_a_loop_that_has_run_takes_little(where):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, where], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode == 3:
        pytest.skip("this C library has no mallinfo2")
    assert (done.returncode, done.stderr) == (0, "")
    heap, blocks = map(int, done.stdout.split())
    assert heap <= MOST[where]
    assert blocks <= BLOCKS


def test_the_object_fits_its_size_class():
    import tokioloop

    assert tokioloop.TokioLoop.__basicsize__ <= OBJECT
