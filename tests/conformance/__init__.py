"""CPython's own asyncio tests, run on the loop under test.

`python -m tests.conformance` takes `test.test_asyncio` from the interpreter in use and runs it on `TokioLoop`, and
in the same run on asyncio's own loop. What asyncio's loop does not pass here (a test that fails or is skipped) is not
counted; all others must pass, except those listed in `expectations.toml`, which are strict (see `expectations`).

How a test gets the subject (`substitute`, `catalogue`):

- The default policy, `asyncio.SelectorEventLoop` and `asyncio.EventLoop` make it, from before the test modules are
  imported. That serves `asyncio.new_event_loop()`, `asyncio.run`, `Runner`, `IsolatedAsyncioTestCase` and every class
  that takes asyncio's loop by its public name. The policy classes themselves stay asyncio's own.
- Classes that give asyncio's loop a selector by hand (such as `EPollEventLoopTests`) all test one thing, a
  loop; one class, `SubjectLoopTests`, replaces them.
- test_runners and test_pep492 build a `BaseEventLoop` and mock its selector away; they get the subject. The gather tests
  look at its ready queue; they get a helper that does not.
- The tests of asyncio's C types come a second time, as `Native*`, for the subject's own Future and Task (`native`).
- In test_tasks and test_futures, `new_test_loop()` makes the subject unless the test makes up the time, which no real
  loop can follow. Those tests (the `Native*` ones have a stand-in), and test_unix_events' for asyncio's own pipe transports
  and child watchers, run unchanged on asyncio's `TestLoop`: they only show that nothing around it was disturbed.
- A mock that a test puts into asyncio's modules also replaces the object that the subject uses (`mirror`).
- Tests that only make sense of asyncio's inner parts are excepted as `private`.

A test that starts another interpreter has asyncio's loop there. Each test's loops are counted, and the report says
how many tests made the subject; a test that silently ran on another loop would show there by that loop's name.

Isolation (`worker`): a process imports everything once and forks a child per test, with a deadline; the child leads a
session that ends with it, and goes through the interpreter's finalisation. A hang shows every thread's traceback; a
crash, also one at exit, names its signal. As in CPython's own runner, threads or processes left behind and
exceptions that could only be printed fail a test.

To add a module: a line in `catalogue.MODULES`, a run, and an exception with a reason for what is left.
"""

PACKAGE = "test.test_asyncio"
SUBJECT = "tokioloop.TokioLoop"
BASELINE = "asyncio.SelectorEventLoop"
