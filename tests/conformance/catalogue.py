"""The parts of `test.test_asyncio` that run, and how each module is made to use the loop under test.

Two things cover nearly everything: `substitute` makes asyncio's default policy and the public class names
produce the subject, and the classes below, which ask for one of asyncio's own selectors by hand, give way to a
single class whose loop comes from `asyncio.new_event_loop()`.
"""

import asyncio
import fnmatch
import importlib
import types
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from . import PACKAGE, native, substitute

SELECTOR_CLASSES = (
    "KqueueEventLoopTests",
    "EPollEventLoopTests",
    "PollEventLoopTests",
    "SelectEventLoopTests",
)
SUBJECT_CLASS = "SubjectLoopTests"


@dataclass(frozen=True)
class Module:
    """One test module: the classes left out, and the class remade for the subject."""

    name: str
    note: str
    drop: tuple[str, ...] = ()
    remake: str | None = None
    stand_ins: tuple[tuple[str, str, Callable[..., object]], ...] = ()
    """Helpers of the tests that reach into asyncio's own loop: the class, the method, and what stands in for it."""
    bare: bool = False
    """The module makes a bare `base_events.BaseEventLoop`, for which the subject stands in."""
    real: bool = False
    """`new_test_loop()` without made-up time gives the subject; tests in `fake` keep asyncio's TestLoop."""
    fake: tuple[str, ...] = ()
    required: bool = True
    """Whether the interpreter must have it; modules new in 3.14 are run where they exist."""


def _mixins(name: str, note: str) -> Module:
    return Module(name, note, drop=SELECTOR_CLASSES, remake="SelectEventLoopTests")


POLICY = "loops come from the policy"
ISOLATED = "IsolatedAsyncioTestCase: Runner asks the policy or asyncio.EventLoop"
BARE = "the subject instead of a BaseEventLoop with a mocked selector"

MODULES: tuple[Module, ...] = (
    _mixins("test_events", "the loop's own contract, plus handles, policies, get_event_loop"),
    _mixins("test_sock_lowlevel", "sock_* methods"),
    Module("test_streams", POLICY),
    Module(
        "test_tasks",
        f"{POLICY}, and instead of a TestLoop that needs no made-up time",
        real=True,
        # These call _run_once, or look at what they patched in BaseEventLoop.
        fake=("*.test_log_destroyed_pending_task", "*GatherTests.test_issue46672"),
        stand_ins=(("GatherTestsBase", "_run_loop", substitute.run_loop_of_gather_tests),),
    ),
    Module("test_futures", "the subject instead of TestLoop", real=True),
    Module("test_locks", ISOLATED),
    Module("test_queues", ISOLATED),
    Module("test_runners", BARE, stand_ins=(("BaseTest", "new_loop", substitute.loop_of_test_runners),)),
    Module("test_server", "asyncio.SelectorEventLoop is the subject"),
    Module("test_buffered_proto", "asyncio.SelectorEventLoop is the subject"),
    Module("test_context", POLICY),
    Module("test_taskgroups", ISOLATED),
    Module("test_timeouts", ISOLATED),
    Module("test_waitfor", ISOLATED),
    Module("test_eager_task_factory", POLICY),
    Module(
        "test_unix_events", "asyncio.SelectorEventLoop is the subject; many tests mock unix_events itself"
    ),
    Module("test_pep492", BARE, stand_ins=(("BaseTest", "setUp", substitute.set_up_of_test_pep492),)),
    Module("test_subprocess", POLICY),
    Module("test_threads", ISOLATED),
    Module("test_protocols", "no loop"),
    Module("test_transports", "no loop but a mock"),
    Module("test_staggered", ISOLATED),
    Module("test_futures2", ISOLATED),
    Module("test_graph", ISOLATED, required=False),
    Module("test_free_threading", "asyncio.EventLoop in several threads", required=False),
    Module("test_ssl", "asyncio.new_event_loop and asyncio.SelectorEventLoop are the subject"),
    Module("test_sslproto", "asyncio.SelectorEventLoop is the subject; half of it is SSLProtocol alone"),
    _mixins("test_sendfile", "sendfile and sock_sendfile"),
    Module(
        "test_base_events",
        f"asyncio.SelectorEventLoop is the subject; {BARE}",
        bare=True,
        stand_ins=(("BaseLoopSockSendfileTests", "setUp", substitute.set_up_of_sock_sendfile_tests),),
    ),
)
"""Never: test_selector_events, test_proactor_events and test_windows_*, which are about asyncio's own loops, and 3.14's
test_tools, which formats stacks written down in the test and makes no loop."""


@dataclass
class Suite:
    """The imported tests by id (`module.Class.method`), in the order of their modules."""

    tests: dict[str, unittest.TestCase] = field(default_factory=dict)
    plans: dict[str, Module] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """Modules that could not be imported, with the reason."""

    def prepare(self, test: str) -> None:
        """Applies the replacements of the test's module, in the test's own process."""
        plan = self.plans[test.partition(".")[0]]
        if plan.real and not any(fnmatch.fnmatchcase(test, pattern) for pattern in plan.fake):
            substitute.real_test_loops()


def load(package: str, names: list[str]) -> Suite:
    """Imports the modules of `package` and collects their tests; `substitute.install` must have run before.

    Other packages than `test.test_asyncio` may be named: modules that the table does not know are taken as they are.
    """
    known = {module.name: module for module in MODULES}
    suite = Suite()
    for name in names:
        plan = suite.plans[name] = known.get(name, Module(name, ""))
        try:
            module = importlib.import_module(f"{package}.{name}")
        except unittest.SkipTest as skip:
            suite.broken[name] = f"skipped at import: {skip}"
            continue
        except ModuleNotFoundError as error:
            if plan.required or error.name != f"{package}.{name}":
                suite.broken[name] = f"not importable: {error}"
            continue
        if plan.remake is not None:
            _remake(module, plan.remake)
        if package == PACKAGE:
            native.remake(module, name)
        for class_name, method, stand_in in plan.stand_ins:
            setattr(getattr(module, class_name), method, stand_in)
        if plan.bare:
            setattr(module, "base_events", substitute.base_events_with_the_subject())  # noqa: B010
        for test in _flatten(unittest.defaultTestLoader.loadTestsFromModule(module)):
            cls = type(test)
            if cls.__name__ not in plan.drop:
                suite.tests[f"{name}.{cls.__qualname__}.{test.id().rpartition('.')[2]}"] = test
    return suite


def _remake(module: types.ModuleType, base: str) -> None:
    """Adds a subclass of `base` whose loop is a plain new one; module fixtures are found through `__module__`."""

    def create_event_loop(self: unittest.TestCase) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    body = {"create_event_loop": create_event_loop, "__module__": module.__name__}
    setattr(module, SUBJECT_CLASS, type(SUBJECT_CLASS, (getattr(module, base),), body))


def _flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _flatten(item)
        else:
            yield item
