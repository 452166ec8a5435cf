"""Makes asyncio produce the loop under test, and counts which loops a test really made.

The patch stays in one worker process. It must come before the test modules are imported, since some of them read
`asyncio.EventLoop` in a class body.
"""

import asyncio
import functools
import importlib
import types
from asyncio import base_events, unix_events
from collections import Counter
from typing import Any

made: Counter[str] = Counter()
"""Loops constructed in this process: key `subject`, else the name of the foreign class (asyncio's own, TestLoop)."""


def resolve(dotted: str) -> type[Any]:
    """The class named `package.Class`; ImportError when there is none."""
    module, _, name = dotted.rpartition(".")
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type):
        raise ImportError(f"{dotted} does not name a class")
    return found


def install(dotted: str) -> None:
    """From now on the default policy, `asyncio.SelectorEventLoop` and `asyncio.EventLoop` make the subject.

    The policy's classes stay asyncio's own: only what they build changes, so that tests of policies, and subclasses
    made by tests, go on as they are.
    """
    subject = resolve(dotted)
    policy = getattr(unix_events, "_UnixDefaultEventLoopPolicy")  # noqa: B009 - private, and not in typeshed
    policy._loop_factory = subject
    setattr(asyncio, "SelectorEventLoop", subject)  # noqa: B010 - a class name, which a checker would refuse
    setattr(asyncio, "EventLoop", subject)  # noqa: B010
    if not hasattr(subject, "_default_executor"):
        # CPython's test utilities look there to know whether threads are to be waited for.
        subject._default_executor = None
    _count(subject, subject)
    if not issubclass(subject, base_events.BaseEventLoop):
        _count(base_events.BaseEventLoop, subject)
    else:
        _count_foreign(subject)


def loop_of_test_runners(test: Any) -> asyncio.AbstractEventLoop:
    """For test_runners' `BaseTest.new_loop`: a subject that notes, as the tests demand, that `Runner` ended its generators."""
    loop: Any = asyncio.SelectorEventLoop()
    original = loop.shutdown_asyncgens
    loop.shutdown_ag_run = False

    async def shutdown_asyncgens() -> None:
        loop.shutdown_ag_run = True
        await original()

    loop.shutdown_asyncgens = shutdown_asyncgens
    return loop  # type: ignore[no-any-return]


def set_up_of_test_pep492(test: Any) -> None:
    """For test_pep492's `BaseTest.setUp`."""
    from test.test_asyncio import utils  # type: ignore[import-not-found]

    utils.TestCase.setUp(test)
    test.loop = asyncio.SelectorEventLoop()
    test.set_event_loop(test.loop)


def set_up_of_sock_sendfile_tests(test: Any) -> None:
    """For test_base_events' `BaseLoopSockSendfileTests.setUp`, which makes a loop that leaves files to the fallback."""
    from test.support import os_helper  # type: ignore[import-not-found]
    from test.test_asyncio import utils

    test.loop = loop = asyncio.SelectorEventLoop()
    refusal = getattr(base_events.BaseEventLoop, "_sock_sendfile_native")  # noqa: B009
    setattr(loop, "_sock_sendfile_native", types.MethodType(refusal, loop))  # noqa: B010
    test.set_event_loop(loop)
    test.file = open(os_helper.TESTFN, "rb")  # noqa: SIM115
    test.addCleanup(test.file.close)
    utils.TestCase.setUp(test)


def base_events_with_the_subject() -> Any:
    """For modules that test a bare `base_events.BaseEventLoop`: `base_events` as they see it, with the subject in that place.

    Their tests turn it by hand, with `_run_once`. A loop without such a part turns once all the same: it runs, and stops as
    soon as what was ready has run.
    """
    subject = asyncio.SelectorEventLoop
    if issubclass(subject, base_events.BaseEventLoop):
        return base_events

    def _run_once(self: asyncio.AbstractEventLoop) -> None:
        self.stop()
        self.run_forever()

    class Loop(subject):
        """A class of its own, so that no other test sees the addition."""

    setattr(Loop, "_run_once", _run_once)  # noqa: B010
    seen = types.ModuleType(base_events.__name__)
    vars(seen).update(vars(base_events))
    setattr(seen, "BaseEventLoop", Loop)  # noqa: B010
    return seen


def run_loop_of_gather_tests(test: Any, loop: asyncio.AbstractEventLoop) -> None:
    """For test_tasks' `GatherTestsBase._run_loop`, which looks at the ready queue to see when nothing is left.

    A gather settles within two turns; more do no harm.
    """
    from test.test_asyncio import utils

    for _ in range(5):
        utils.run_briefly(loop)


def real_test_loops() -> None:
    """`new_test_loop()` of CPython's test utilities gives the subject, unless the test makes up its own time.

    To be called in a test's own process.
    """
    from test.test_asyncio import utils

    original = utils.TestCase.new_test_loop

    def new_test_loop(self: Any, gen: Any = None) -> Any:
        if gen is not None:
            return original(self, gen)
        loop = asyncio.SelectorEventLoop()
        self.set_event_loop(loop)
        return loop

    setattr(utils.TestCase, "new_test_loop", new_test_loop)  # noqa: B010


def _count(cls: type[Any], subject: type[Any]) -> None:
    original = cls.__init__

    @functools.wraps(original)
    def counting(self: Any, *args: Any, **kwargs: Any) -> None:
        made["subject" if isinstance(self, subject) else type(self).__name__] += 1
        original(self, *args, **kwargs)

    setattr(cls, "__init__", counting)  # noqa: B010


def _count_foreign(subject: type[Any]) -> None:
    """As `_count` for BaseEventLoop, where the subject's own construction also passes and is counted already."""
    original = base_events.BaseEventLoop.__init__

    @functools.wraps(original)
    def counting(self: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(self, subject):
            made[type(self).__name__] += 1
        original(self, *args, **kwargs)

    setattr(base_events.BaseEventLoop, "__init__", counting)  # noqa: B010
