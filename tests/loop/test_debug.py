"""Debug mode: slow callbacks, where handles were made, and objects that are not callbacks."""

import asyncio
import os
import subprocess
import sys
import time

import pytest

from ..children import finish
from .support import PATIENCE, ROOT


@pytest.fixture
def loop(loop):
    loop.set_debug(True)
    return loop


async def coroutine_function():
    pass


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_objects_that_are_not_callbacks_are_refused(loop, method):
    args = (0,) if method in ("call_later", "call_at") else ()
    coro = coroutine_function()
    for bad in (coro, coroutine_function):
        with pytest.raises(TypeError, match="coroutines cannot be used with"):
            getattr(loop, method)(*args, bad)
    coro.close()
    with pytest.raises(TypeError, match="a callable object was expected"):
        getattr(loop, method)(*args, "not callable")


def test_slow_callbacks_are_logged(loop, turn, caplog):
    loop.slow_callback_duration = 0.0
    loop.call_soon(time.sleep, 0)
    turn()
    assert "Executing <Handle sleep(0)" in caplog.text
    assert "took 0.0" in caplog.text


def test_slow_task_steps_are_logged_with_the_task(loop, run, caplog):
    loop.slow_callback_duration = 0.0
    run(coroutine_function())
    assert "Executing <Task finished" in caplog.text


def test_quick_callbacks_are_not_logged(loop, turn, caplog):
    loop.slow_callback_duration = 60.0
    loop.call_soon(time.sleep, 0)
    turn()
    assert "Executing" not in caplog.text


def test_the_current_handle_is_known_while_it_runs(loop, turn):
    seen = []
    handle = loop.call_soon(lambda: seen.append(loop._current_handle))
    turn()
    assert seen == [handle]
    assert loop._current_handle is None


def test_the_source_traceback_ends_where_the_call_was_made(loop):
    for handle in (loop.call_soon(print), loop.call_later(1, print), loop.call_soon_threadsafe(print)):
        frame = handle._source_traceback[-1]
        assert frame.filename == __file__
        assert frame.name == "test_the_source_traceback_ends_where_the_call_was_made"


def test_coroutine_origins_are_tracked_during_the_run_only(loop, run):
    before = sys.get_coroutine_origin_tracking_depth()

    async def depth():
        return sys.get_coroutine_origin_tracking_depth()

    assert run(depth()) > before
    assert sys.get_coroutine_origin_tracking_depth() == before


def test_switching_debug_mode_while_running(loop, run):
    async def main():
        depths = []
        for debug in (False, True, False):
            loop.set_debug(debug)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            depths.append(sys.get_coroutine_origin_tracking_depth())
        return depths

    before = sys.get_coroutine_origin_tracking_depth()
    off, on, off_again = run(main())
    assert off == off_again == before and on > before
    assert sys.get_coroutine_origin_tracking_depth() == before


@pytest.mark.parametrize(
    ("options", "environ", "debug"),
    [
        ((), {}, False),
        (("-X", "dev"), {}, True),
        ((), {"PYTHONDEVMODE": "1"}, True),
        ((), {"PYTHONASYNCIODEBUG": "1"}, True),
        ((), {"PYTHONASYNCIODEBUG": ""}, False),
        (("-E",), {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"}, False),
    ],
)
def test_settings_that_switch_debug_mode_on(options, environ, debug):
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import asyncio, tokioloop
async def main():
    return asyncio.get_running_loop().get_debug()
loop = tokioloop.new_event_loop()
print(loop.get_debug(), tokioloop.run(main()))
loop.close()
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [str(debug)] * 2, "")


def test_development_mode_shows_unclosed_objects():
    done = finish([sys.executable, "-X", "dev", "-c", LEFT_OPEN])
    assert done.returncode == 0, done.stderr
    assert "ResourceWarning: unclosed transport <StreamTransport" in done.stderr
    assert "ResourceWarning: unclosed event loop <TokioLoop" in done.stderr


LEFT_OPEN = """
import asyncio, gc, socket, tokioloop
near, far = socket.socketpair()
loop = tokioloop.new_event_loop()
loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=near))
del loop
gc.collect()
far.close()
"""


def test_sock_calls_refuse_blocking_sockets(loop, run, pair):
    near, _ = pair
    near.setblocking(True)
    with pytest.raises(ValueError, match="the socket must be non-blocking"):
        run(loop.sock_recv(near, 1))


def test_a_slow_protocol_callback_is_logged(loop, run, pair, caplog):
    near, far = pair

    class Slow(asyncio.Protocol):
        def __init__(self):
            self.done = loop.create_future()

        def data_received(self, data):
            self.done.set_result(data)

    async def main():
        transport, protocol = await loop.create_connection(Slow, sock=near)
        far.send(b"x")
        assert await protocol.done == b"x"
        transport.close()

    loop.set_debug(True)
    loop.slow_callback_duration = 0
    run(main())
    assert any("Executing a callback of <" in message and "Slow" in message for message in caplog.messages)
