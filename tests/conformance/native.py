"""CPython's tests of the Future and Task of `_asyncio`, and of streams, repeated for the subject's own types.

The classes for the C types come a second time: `CTask_PyFuture_Tests` also as `NativeTask_PyFuture_Tests`. Where the subject
has no types of its own, as asyncio's loop that it is compared with, they test asyncio's.

The subject's types take only its own loops. So these tests get, in the place of a TestLoop, a subject that follows the time
they make up (`made_up_time`).
"""

import asyncio
import sys
import types
from collections.abc import Iterator
from typing import Any

from .made_up_time import Times, loop_class

CLASSES: dict[str, dict[str, str]] = {
    "test_futures": {
        "CFutureTests": "NativeFutureTests",
        "CSubFutureTests": "NativeSubFutureTests",
        "CFutureDoneCallbackTests": "NativeFutureDoneCallbackTests",
        "CSubFutureDoneCallbackTests": "NativeSubFutureDoneCallbackTests",
        "CFutureInheritanceTests": "NativeFutureInheritanceTests",
    },
    "test_futures2": {"CFutureTests": "NativeFutureTests"},
    "test_tasks": {
        "CTask_CFuture_Tests": "NativeTask_NativeFuture_Tests",
        "CTask_CFuture_SubclassTests": "NativeTask_NativeFuture_SubclassTests",
        "CTaskSubclass_PyFuture_Tests": "NativeTaskSubclass_PyFuture_Tests",
        "PyTask_CFutureSubclass_Tests": "PyTask_NativeFutureSubclass_Tests",
        "CTask_PyFuture_Tests": "NativeTask_PyFuture_Tests",
        "PyTask_CFuture_Tests": "PyTask_NativeFuture_Tests",
        "CCurrentLoopTests": "NativeCurrentLoopTests",
    },
    "test_streams": {"StreamTests": "NativeStreamTests"},
    "test_eager_task_factory": {
        "CEagerTaskFactoryLoopTests": "NativeEagerTaskFactoryLoopTests",
        "NonEagerCTaskTests": "NonEagerNativeTaskTests",
        "EagerCTaskTests": "EagerNativeTaskTests",
    },
}
"""By module: the classes, and the names of their copies."""


def remake(module: types.ModuleType, name: str) -> None:
    """Adds copies of a test module's tests of C types."""
    for original, again in CLASSES.get(name, {}).items():
        setattr(module, again, _remade(module, getattr(module, original), again))


def own_types() -> tuple[type[Any], type[Any]]:
    """The Future and Task of the subject's package, or asyncio's."""
    package = sys.modules[asyncio.SelectorEventLoop.__module__.partition(".")[0]]
    return getattr(package, "Future", asyncio.Future), getattr(package, "Task", asyncio.Task)


def _remade(module: types.ModuleType, original: type[Any], name: str) -> type[Any]:
    body = {"__module__": module.__name__, "__qualname__": name, **dict(_replacements(original))}
    # `add_subclass_tests` has put types derived from C's into the class: it begins again from the bases.
    of_subclasses = "test_subclasses_ctask_cfuture" in vars(original)
    bases: tuple[type[Any], ...] = original.__bases__ if of_subclasses else (original,)
    if own_types()[0] is not asyncio.Future:
        bases = (_OnSubject, *bases)
    if name == "NativeStreamTests":
        bases = (_WithOwnStreams, *bases)
    made = type(name, bases, body)
    return module.add_subclass_tests(made) if of_subclasses else made  # type: ignore[no-any-return]


def _replacements(original: type[Any]) -> Iterator[tuple[str, Any]]:
    """The attribute that names the types under test, for each class."""
    future, task = own_types()
    if original.__name__.startswith("CSub"):
        future = type("CSubFuture", (future,), {})
    if hasattr(original, "_get_future_cls"):
        yield "_get_future_cls", lambda self: future
    if original.__name__.endswith("DoneCallbackTests"):
        yield "_new_future", lambda self: future(loop=self.loop)
    if hasattr(original, "cls"):
        yield "cls", task if issubclass(original.cls, asyncio.Task) else future
    if original.__name__.endswith("CurrentLoopTests"):
        yield "new_task", lambda self, coro: task(coro, loop=self.loop)
    for attribute, own in ("Task", task), ("Future", future):
        kind = getattr(original, attribute, None)
        if kind is not None and issubclass(kind, getattr(asyncio, attribute)):
            yield attribute, own
        elif kind is not None:
            # The one in Python; in a class of subclasses, what the test has derived from it.
            yield attribute, kind.__bases__[-1] if "Subclass" in original.__name__ else kind


class _OnSubject:
    """Test loops are the subject's. (Each test runs in a process of its own, where it may change modules.)"""

    def setUp(self) -> None:
        task = getattr(self, "Task", None)
        if task is not None and issubclass(task, own_types()[1]):
            # One test names it instead of asking its class.
            setattr(asyncio, "Task", task)  # noqa: B010
        module = sys.modules[type(self).__module__]
        evil = getattr(module, "SimpleEvilEventLoop", None)
        if evil is not None:
            body = {name: vars(evil)[name] for name in ("get_debug", "__del__")}
            setattr(module, "SimpleEvilEventLoop", type(evil.__name__, (asyncio.SelectorEventLoop,), body))  # noqa: B010
        super().setUp()  # type: ignore[misc]

    def new_test_loop(self, gen: Times | None = None) -> Any:
        loop = loop_class(asyncio.SelectorEventLoop)(gen)
        self.set_event_loop(loop)  # type: ignore[attr-defined]
        return loop


class _WithOwnStreams:
    """asyncio's classes and functions of streams are the subject's, where it has its own."""

    NAMES = (
        "StreamReader",
        "StreamReaderProtocol",
        "StreamWriter",
        "open_connection",
        "open_unix_connection",
        "start_server",
        "start_unix_server",
    )

    def setUp(self) -> None:
        package = sys.modules[asyncio.SelectorEventLoop.__module__.partition(".")[0]]
        for name in self.NAMES:
            own = getattr(package, name, None)
            if own is not None:
                setattr(asyncio, name, own)
                setattr(asyncio.streams, name, own)
        super().setUp()  # type: ignore[misc]
