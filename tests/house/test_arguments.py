"""Methods that take arguments by position and by name: calls that bring no array of arguments at all."""

import sys

from ..children import finish

# An iterator made by `iter(callable, sentinel)` calls with no arguments and a null pointer in place of the array. Debug builds
# abort where a slice is made of that.
WITHOUT_AN_ARRAY = """
import sys
import tokioloop

loop = tokioloop.new_event_loop()
pool = tokioloop.WorkerPool(1)
reader = tokioloop.StreamReader(loop=loop)
future = loop.create_future()
for method in (
    loop.call_soon, loop.call_soon_threadsafe, loop.call_later, loop.call_at, loop.create_task,
    loop.sock_recv, loop.sock_accept, future.add_done_callback, reader.feed_data, reader.readexactly, pool.submit,
):
    try:
        next(iter(method, None))
    except TypeError as error:
        print(method.__name__, "missing" in str(error) or "takes exactly 1" in str(error))
future.cancel()
assert next(iter(future.cancel, None)) is False
pool.shutdown()
loop.close()
"""


def test_a_call_may_bring_no_array():
    done = finish([sys.executable, "-c", WITHOUT_AN_ARRAY])
    assert (done.returncode, done.stderr) == (0, "")
    assert "False" not in done.stdout, done.stdout
    assert len(done.stdout.splitlines()) == 11
