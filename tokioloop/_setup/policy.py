"""The event loop policy, for programs that choose their loop that way (deprecated from 3.14 on)."""

import asyncio
import sys

from .. import _tokioloop
from .._loop.public import public
from ..loop import TokioLoop

if sys.version_info >= (3, 14):
    # The public name warns when it is looked up.
    from asyncio.unix_events import _DefaultEventLoopPolicy as _Base
else:
    from asyncio.unix_events import DefaultEventLoopPolicy as _Base


@public
class EventLoopPolicy(_Base):
    """asyncio's default policy with ``TokioLoop`` as its loop.

    ``get_event_loop`` also knows the ``TokioLoop`` bound to the calling thread, so that code which looked up
    ``asyncio.get_event_loop`` before ``install()`` gets the same answer as code which does so later.
    """

    _loop_factory = TokioLoop

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return the ``TokioLoop`` bound to this thread, or the loop set for it; raise RuntimeError without either."""
        bound = _tokioloop._bound_loop()
        if isinstance(bound, asyncio.AbstractEventLoop):
            return bound
        return super().get_event_loop()

    def set_event_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Make *loop* this thread's own; None leaves the thread without one.

        The last setting decides: another kind of loop, or None, replaces one bound to the thread.
        """
        super().set_event_loop(loop)
        _tokioloop._bind(loop if isinstance(loop, TokioLoop) and _may_bind(loop) else None)


def _may_bind(loop: TokioLoop) -> bool:
    """Return whether the calling thread may take *loop*: it is open, and no other thread runs it."""
    return not loop.is_closed() and (not loop.is_running() or loop is asyncio._get_running_loop())
