"""Signal handlers of a loop, on the main thread.

The native core owns the wakeup descriptor while a loop runs on the main thread: every signal number read
there comes to ``_on_signal``. A signal that arrives while no loop of the main thread runs is delivered by the
Python-level handler instead, so that it is not lost between ``add_signal_handler`` and ``run_forever``.
"""

import errno
import signal
import sys
import warnings
from asyncio import _get_running_loop, iscoroutine
from collections.abc import Callable
from inspect import iscoroutinefunction
from threading import current_thread, main_thread
from types import FrameType
from weakref import ref

from ._tokioloop import EventLoop, Handle


class Signals(EventLoop):
    """add_signal_handler and remove_signal_handler."""

    _signal_handlers: dict[int, Handle] | None = None

    def add_signal_handler[*Ts](self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call ``callback(*args)`` on the loop whenever signal *sig* arrives. Main thread only.

        Raises ValueError for an invalid number, TypeError for a coroutine function, and RuntimeError from
        another thread, on a closed loop, or for a signal that cannot be caught.
        """
        if iscoroutine(callback) or iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)
        self._check_closed()
        self._check_thread()
        if current_thread() is not main_thread():
            raise RuntimeError("set_wakeup_fd only works in main thread of the main interpreter")
        handle = self._make_handle(callback, args)
        try:
            signal.signal(sig, _deliverer(self))
            # Most system calls resume by themselves, so that code of others sees no EINTR.
            signal.siginterrupt(sig, False)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            raise
        if self._signal_handlers is None:
            self._signal_handlers = {}
        self._signal_handlers[sig] = handle

    def remove_signal_handler(self, sig: int) -> bool:
        """Go back to the default action for *sig*. Return whether a handler was there. Main thread only."""
        self._check_signal(sig)
        self._check_thread()
        handlers = self._signal_handlers
        if not handlers or handlers.pop(sig, None) is None:
            return False
        try:
            signal.signal(sig, signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            raise
        return True

    def _on_signal(self, sig: int) -> None:
        """Run what was registered for *sig*. On the loop's thread, or on no loop's."""
        handlers = self._signal_handlers
        handle = handlers.get(sig) if handlers else None
        if handle is None:
            # A signal somebody else handles, or one that was on its way when its handler went.
            return
        if handle.cancelled():
            self.remove_signal_handler(sig)
        else:
            self._schedule(handle)

    def _drop_signal_handlers(self) -> None:
        """For ``close``."""
        handlers = self._signal_handlers
        if not handlers:
            return
        if sys.is_finalizing():
            warnings.warn(
                f"Closing the loop {self!r} on interpreter shutdown stage, skipping signal handlers removal",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )
            handlers.clear()
            return
        for sig in list(handlers):
            self.remove_signal_handler(sig)

    def _check_signal(self, sig: int) -> None:
        if not isinstance(sig, int):
            raise TypeError(f"sig must be an int, not {sig!r}")
        if sig not in signal.valid_signals():
            raise ValueError(f"invalid signal number {sig}")


def _deliverer(loop: Signals) -> Callable[[int, FrameType | None], None]:
    # Weak: the interpreter's signal table must not keep a loop alive.
    target = ref(loop)

    def deliver(sig: int, frame: FrameType | None) -> None:
        loop = target()
        if loop is None or loop.is_closed() or loop is _get_running_loop():  # type: ignore[comparison-overlap]
            return
        if loop.is_running():
            # Moved to another thread after the handler was added.
            loop.call_soon_threadsafe(loop._on_signal, sig)
        else:
            loop._on_signal(sig)

    return deliver
