"""run(): asyncio's own runner on a TokioLoop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .._loop.public import public
from ..loop import TokioLoop


@public
def run[T](
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run *main* on a new ``TokioLoop`` and return its result; the loop is closed at the end.

    As ``asyncio.run``: remaining tasks are cancelled, async generators and the default executor shut
    down (the latter within five minutes), and Ctrl-C cancels *main*. *loop_factory* replaces the loop.
    Raises RuntimeError where a loop already runs in this thread. Any thread may call it.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=loop_factory or TokioLoop) as runner:
        return runner.run(main)
