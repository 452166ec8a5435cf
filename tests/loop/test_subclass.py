"""Classes derived from TokioLoop: what they override is what the native core calls."""

import asyncio
import socket

import pytest

import tokioloop


@pytest.fixture
def closing():
    loops = []
    yield loops.append
    for loop in loops:
        loop.close()


def test_own_attributes_and_init_arguments(closing):
    class Loop(tokioloop.TokioLoop):
        def __init__(self, name, *, size=1):
            super().__init__()
            self.name, self.size = name, size

    loop = Loop("mine", size=3)
    closing(loop)
    assert (loop.name, loop.size) == ("mine", 3)
    assert repr(loop) == "<Loop running=False closed=False debug=False>"


def test_an_overridden_call_soon_sees_task_steps(closing):
    calls = []

    class Loop(tokioloop.TokioLoop):
        def call_soon(self, callback, *args, context=None):
            calls.append(callback)
            return super().call_soon(callback, *args, context=context)

    loop = Loop()
    closing(loop)
    loop.run_until_complete(asyncio.sleep(0))
    assert len(calls) >= 2


def test_an_overridden_call_exception_handler_gets_the_errors(closing):
    seen = []

    class Loop(tokioloop.TokioLoop):
        def call_exception_handler(self, context):
            seen.append(context["exception"])

    loop = Loop()
    closing(loop)
    loop.call_soon(lambda: 1 / 0)
    loop.stop()
    loop.run_forever()
    assert isinstance(seen[0], ZeroDivisionError)


def test_an_overridden_create_task_makes_the_tasks(closing):
    made = []

    class Loop(tokioloop.TokioLoop):
        def create_task(self, coro, **options):
            task = super().create_task(coro, **options)
            made.append(task)
            return task

    loop = Loop()
    closing(loop)

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))

    loop.run_until_complete(main())
    assert len(made) == 2


def test_an_overridden_call_later_serves_sleep(closing):
    delays = []

    class Loop(tokioloop.TokioLoop):
        def call_later(self, delay, callback, *args, context=None):
            delays.append(delay)
            return super().call_later(0, callback, *args, context=context)

    loop = Loop()
    closing(loop)
    loop.run_until_complete(asyncio.sleep(3600))
    assert delays == [3600]


def test_overridden_hooks_for_async_generators(closing):
    seen = []

    class Loop(tokioloop.TokioLoop):
        def _asyncgen_firstiter_hook(self, agen):
            seen.append("first")
            super()._asyncgen_firstiter_hook(agen)

    loop = Loop()
    closing(loop)

    async def numbers():
        yield 1

    async def main():
        async for _ in numbers():
            pass

    loop.run_until_complete(main())
    assert seen == ["first"]


def test_a_run_forever_that_wraps_the_native_one(closing):
    class Loop(tokioloop.TokioLoop):
        runs = 0

        def run_forever(self):
            self.runs += 1
            super().run_forever()

    loop = Loop()
    closing(loop)
    loop.run_until_complete(asyncio.sleep(0))
    assert loop.runs == 1


def test_init_not_called_by_a_subclass(closing):
    """The loop works; it is only not listed among the process's loops."""

    class Loop(tokioloop.TokioLoop):
        def __init__(self):
            pass

    loop = Loop()
    closing(loop)
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.send(b"x")
        assert loop.run_until_complete(loop.sock_recv(near, 1)) == b"x"
    assert loop not in tokioloop.loops().values()


def test_init_called_twice(closing):
    loop = tokioloop.TokioLoop()
    closing(loop)
    loop.__init__()
    loop.run_until_complete(asyncio.sleep(0))
    assert list(tokioloop.loops().values()).count(loop) == 1


def test_an_overridden_on_signal(closing):
    import signal

    seen = []

    class Loop(tokioloop.TokioLoop):
        def _on_signal(self, signum):
            seen.append(signum)
            super()._on_signal(signum)

    loop = Loop()
    closing(loop)
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    loop.run_forever()
    assert seen == [signal.SIGUSR1]


def test_an_overridden_call_soon_sees_callbacks_of_futures(closing):
    calls = []

    class Loop(tokioloop.TokioLoop):
        def call_soon(self, callback, *args, context=None):
            calls.append(callback)
            return super().call_soon(callback, *args, context=context)

    def told(future):
        pass

    async def main():
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(told)
        future.set_result(None)
        await future

    loop = Loop()
    closing(loop)
    loop.run_until_complete(main())
    assert calls.count(told) == 1


def test_methods_in_c_are_the_class_s_own():
    """Found at the first class an object is looked for in, at each call."""
    for name in ("call_soon", "call_later", "call_soon_threadsafe", "create_task", "sock_recv", "time"):
        assert getattr(tokioloop.TokioLoop, name).__objclass__ is tokioloop.TokioLoop, name
