"""However deep a program nests its objects, it gets RecursionError or a result, and continues, on stacks of any size.

Each program runs in an interpreter of its own, since a failure here ends the process.
"""

import pytest

from .support import python

# In KiB; 0 for the main thread's.
STACKS = [0, 64, 256]

PRELUDE = """
    import asyncio, os, sys, threading
    import tokioloop
    # Imported here: 3.14 can't compile a module on a stack of 64 KiB.
    tokioloop.WorkerPool, tokioloop.StreamReader

    def program():
        loop = tokioloop.TokioLoop()
        loop.set_exception_handler(lambda loop, context: None)
        try:
            with tokioloop_runner(loop) as runner:
                runner.run(main())
        except RecursionError:
            pass
        # Whatever the result, another loop works.
        loop = tokioloop.TokioLoop()
        assert loop.run_until_complete(asyncio.sleep(0, 7)) == 7
        loop.close()
        done.append(True)

    class tokioloop_runner:
        # As asyncio.Runner, which cancels the remaining tasks at its end; that may fail as the program's own cancel() did.
        def __init__(self, loop):
            self.loop = loop
        def __enter__(self):
            return self
        def run(self, coro):
            return self.loop.run_until_complete(coro)
        def __exit__(self, *_):
            for task in asyncio.all_tasks(self.loop):
                task._log_destroy_pending = False
                try:
                    task.cancel()
                except RecursionError:
                    pass
            for _ in range(3):
                self.loop.call_soon(self.loop.stop)
                self.loop.run_forever()
            self.loop.close()

    async def link(former):
        await former

    def chain(length, first=None):
        # The first task, and so many more, of which each awaits the one before it.
        tasks = [asyncio.ensure_future(first or asyncio.sleep(1000))]
        for _ in range(length):
            tasks.append(asyncio.ensure_future(link(tasks[-1])))
        return tasks

    def pair():
        # Two tasks that await each other.
        async def other(number):
            await tasks[number]
        tasks = []
        tasks += [asyncio.ensure_future(other(1)), asyncio.ensure_future(other(0))]
        return tasks

    done = []

    def leave():
        # Without the interpreter's end: it releases tracebacks of thousands of coroutines recursively, which overflows small stacks.
        print("done")
        sys.stdout.flush()
        os._exit(0)
"""

END = """
    size = int(sys.argv[1])
    if size:
        threading.stack_size(size * 1024)
        thread = threading.Thread(target=program)
        thread.start()
        thread.join()
    else:
        program()
    assert done
    leave()
"""

CANCEL = {
    "two tasks that await each other": """
        tasks = pair()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in tasks:
            try:
                task.cancel()
            except RecursionError:
                pass
            else:
                raise AssertionError("cancelled")
    """,
    "a circle of many": """
        async def link(number):
            await tasks[number - 1]
        tasks = []
        for number in range(1000):
            tasks.append(asyncio.ensure_future(link(number)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            tasks[500].cancel()
        except RecursionError:
            pass
        else:
            raise AssertionError("cancelled")
    """,
    "a way into a circle": """
        async def link(number):
            await tasks[number - 1 if number else 9]
        tasks = []
        for number in range(100):
            tasks.append(asyncio.ensure_future(link(number)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            tasks[99].cancel()
        except RecursionError:
            pass
        else:
            raise AssertionError("cancelled")
    """,
    "gathers in a circle": """
        async def one():
            await asyncio.gather(tasks[1])
        async def other():
            await asyncio.gather(tasks[0])
        tasks = []
        tasks += [asyncio.ensure_future(one()), asyncio.ensure_future(other())]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            tasks[0].cancel()
        except RecursionError:
            pass
    """,
    "a long chain": """
        tasks = chain(30_000)
        await asyncio.sleep(0)
        assert tasks[-1].cancel("why")
        if threading.current_thread() is not threading.main_thread():
            leave()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        assert all(task.cancelled() and task.cancelling() == 1 for task in tasks)
    """,
    "a long chain whose first is done": """
        tasks = chain(1000, asyncio.sleep(0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert tasks[0].done() and not tasks[1].done()
        assert tasks[-1].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert ends[0] is None
        assert all(isinstance(end, asyncio.CancelledError) for end in ends[1:])
    """,
    "a chain of gathers": """
        async def link(former):
            await asyncio.gather(former)
        tasks = [asyncio.ensure_future(asyncio.sleep(1000))]
        for _ in range(2000):
            tasks.append(asyncio.ensure_future(link(tasks[-1])))
        await asyncio.sleep(0)
        try:
            tasks[-1].cancel()
        except RecursionError:
            pass
        leave()
    """,
    "a chain of derived tasks": """
        class Derived(tokioloop.Task):
            pass
        tasks = [asyncio.ensure_future(asyncio.sleep(1000))]
        for _ in range(5_000):
            tasks.append(Derived(link(tasks[-1]), loop=asyncio.get_running_loop()))
        await asyncio.sleep(0)
        try:
            tasks[-1].cancel()
        except RecursionError:
            pass
        leave()
    """,
    "a chain of tasks of both kinds": """
        loop = asyncio.get_running_loop()
        tasks = [asyncio.ensure_future(asyncio.sleep(1000))]
        for number in range(5_000):
            kind = asyncio.Task if number % 2 else tokioloop.Task
            tasks.append(kind(link(tasks[-1]), loop=loop))
        await asyncio.sleep(0)
        try:
            tasks[-1].cancel()
        except RecursionError:
            pass
        leave()
    """,
}

SHOW = {
    "two tasks that await each other": """
        tasks = pair()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in tasks:
            try:
                assert "wait_for" in repr(task)
            except RecursionError:
                pass
    """,
    "a long chain": """
        tasks = chain(5000)
        await asyncio.sleep(0)
        for show in (repr, str):
            try:
                show(tasks[-1])
            except RecursionError:
                pass
        leave()
    """,
    "a future whose result is a future": """
        loop = asyncio.get_running_loop()
        former = None
        for _ in range(500):
            future = loop.create_future()
            future.set_result(former)
            former = future
        try:
            repr(former)
        except RecursionError:
            pass
        leave()
    """,
    "every task": """
        tasks = chain(5_000)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 5_002
        assert asyncio.current_task() in asyncio.all_tasks()
        leave()
    """,
    "chains of awaits in the debugger's view": """
        tasks = pair()
        for _ in range(2000):
            tasks.append(asyncio.ensure_future(link(tasks[-1])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if hasattr(asyncio, "format_call_graph"):
            for task in (tasks[0], tasks[-1], asyncio.current_task()):
                for show in (asyncio.format_call_graph, asyncio.capture_call_graph):
                    try:
                        show(task)
                    except RecursionError:
                        pass
    """,
}

CALL = {
    "eager tasks": """
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async def nest():
            await asyncio.create_task(nest())
        try:
            await nest()
        except RecursionError:
            pass
        else:
            raise AssertionError("no RecursionError")
    """,
    "eager tasks of a few": """
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async def nest(depth):
            return await asyncio.create_task(nest(depth - 1)) if depth else 0
        assert await nest(3) == 0
    """,
    "a task factory that makes tasks": """
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **options: loop.create_task(coro, **options))
        coro = asyncio.sleep(0)
        try:
            loop.create_task(coro)
        except RecursionError:
            coro.close()
        else:
            raise AssertionError("no RecursionError")
    """,
    "handles that run handles": """
        loop = asyncio.get_running_loop()
        handle = loop.call_soon(int)
        handles = [handle]
        for _ in range(20_000):
            handles.append(loop.call_soon(handles[-1]._run))
        try:
            handles[-1]._run()
        except RecursionError:
            pass
        for handle in handles:
            handle.cancel()
    """,
    "handlers of errors": """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: loop.call_exception_handler(context))
        import logging
        logging.disable()
        try:
            loop.call_exception_handler({"message": "again"})
        except RecursionError:
            pass
        loop.call_soon([].pop)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    """,
    "futures that end one another": """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(20_000)]
        for one, other in zip(futures, futures[1:]):
            one.add_done_callback(lambda _, other=other: other.set_result(None))
        futures[0].set_result(None)
        await futures[-1]
    """,
    "jobs that end one another": """
        import logging
        logging.disable()
        with tokioloop.WorkerPool(1) as pool:
            inside, go = threading.Event(), threading.Event()
            pool.submit(lambda: (inside.set(), go.wait()))
            inside.wait()
            jobs = [pool.submit(int) for _ in range(3000)]
            for one, other in zip(jobs, jobs[1:]):
                one.add_done_callback(lambda _, other=other: other.cancel())
            jobs[0].cancel()
            go.set()
    """,
    "a subclass's call_soon": """
        class Loop(tokioloop.TokioLoop):
            def call_soon(self, callback, arg=None, context=None):
                done.add_done_callback(callback)
        loop = Loop()
        done = loop.create_future()
        done.set_result(None)
        try:
            loop.call_soon(print)
        except RecursionError:
            pass
        loop.close()
    """,
}


def _check(body: str, stack: int) -> None:
    main = "\n    async def main():" + body.replace("\n    ", "\n    ")
    assert "done" in python(PRELUDE + main + END, str(stack)).stdout


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("what", CANCEL)
def test_cancel(what: str, stack: int) -> None:
    _check(CANCEL[what], stack)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("what", SHOW)
def test_show(what: str, stack: int) -> None:
    _check(SHOW[what], stack)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("what", CALL)
def test_call(what: str, stack: int) -> None:
    _check(CALL[what], stack)
