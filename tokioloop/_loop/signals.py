"""Signal handlers of a loop, in whichever thread it runs.

The native side has one handler for the process, which it installs for the numbers that loops ask for; every loop that asked for one
gets a call of ``_on_signal``. Python's own table of handlers belongs to the main thread: there a number that a loop asked for gets a
``_Shared`` entry, so that ``signal.getsignal`` shows that the number is in use and ``asyncio.Runner`` does not replace it.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from asyncio import iscoroutine
from collections.abc import Callable
from inspect import iscoroutinefunction
from threading import RLock, current_thread, main_thread
from types import FrameType

from .._tokioloop import EventLoop, Handle, _insist_on_signal, _is_signal_wanted, _raise_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Orders changes of Python's table and of native's dispositions. A handler written in Python may come in between, in the same
# thread, and add or remove one.
_lock = RLock()


class _Shared:
    """The entry in Python's table for a number that loops asked for on the main thread."""

    def __init__(self, former: Any) -> None:
        self.former = former

    def __call__(self, sig: int, frame: FrameType | None) -> None:
        # Called where Python's C handler is installed again: for a moment in add_signal_handler, and where a program restores what
        # getsignal() gave it.
        if _raise_signal(sig):
            _insist_on_signal(sig)
        elif callable(self.former):
            self.former(sig, frame)


class Signals(EventLoop):
    """add_signal_handler and remove_signal_handler."""

    _signal_handlers: dict[int, Handle] | None = None

    def add_signal_handler[*Ts](self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call ``callback(*args)`` on the loop whenever signal *sig* arrives, in whichever thread the loop runs.

        Several loops may ask for a number, and each gets it. The previous handler (a Python handler, KeyboardInterrupt)
        is not called while a loop asks for it. Raises ValueError for an invalid number, TypeError for a coroutine function,
        and RuntimeError on a closed loop, from another thread than the running loop's, or for a signal that cannot be caught.
        """
        if iscoroutine(callback) or iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)
        self._check_closed()
        self._check_thread()
        handle = self._make_handle(callback, args)
        handlers = self._signal_handlers
        if handlers is None:
            handlers = self._signal_handlers = {}
        with _lock:
            try:
                self._want_signal(sig)
            except OSError as exc:
                if exc.errno == errno.EINVAL:
                    raise RuntimeError(f"sig {sig} cannot be caught") from None
                raise
            # From here on the signal comes here: nothing may fail.
            handlers[sig] = handle
            _show(sig)

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove the handler for signal *sig*. Return whether there was one.

        If no other loop asks for it, the previous handler is restored; but on the main thread, as in asyncio, the
        default action (KeyboardInterrupt for SIGINT) is.
        """
        self._check_signal(sig)
        self._check_thread()
        handlers = self._signal_handlers
        if not handlers or handlers.pop(sig, None) is None:
            return False
        with _lock:
            if self._unwant_signal(sig) or _is_left_over(sig):
                _set_default(sig)
        return True

    def _on_signal(self, sig: int) -> None:
        """Run the callback registered for *sig*. On the loop's thread."""
        handlers = self._signal_handlers
        handle = handlers.get(sig) if handlers else None
        if handle is None:
            # The signal was in transit when its handler was removed.
            return
        if handle.cancelled():
            self.remove_signal_handler(sig)
        else:
            self._schedule(handle)

    def _drop_signal_handlers(self) -> None:
        """For ``close``, after the native loop has closed and asks for no signals any more."""
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
        numbers = list(handlers)
        handlers.clear()
        with _lock:
            for sig in numbers:
                if _is_left_over(sig):
                    _set_default(sig)

    def _check_signal(self, sig: int) -> None:
        if not isinstance(sig, int):
            raise TypeError(f"sig must be an int, not {sig!r}")
        if sig not in signal.valid_signals():
            raise ValueError(f"invalid signal number {sig}")


def _show(sig: int) -> None:
    """Put a number that loops ask for into Python's table, which only the main thread may. Under the lock."""
    if current_thread() is main_thread() and not isinstance(former := signal.getsignal(sig), _Shared):
        signal.signal(sig, _Shared(former))
        # That replaced our handler with Python's C handler.
        _insist_on_signal(sig)


def _is_left_over(sig: int) -> bool:
    """Whether Python's table has our entry for a number that no loop asks for any more. Under the lock."""
    return isinstance(signal.getsignal(sig), _Shared) and not _is_signal_wanted(sig)


def _set_default(sig: int) -> None:
    """Put the default action into Python's table, which only the main thread may. Under the lock."""
    if current_thread() is not main_thread():
        return
    try:
        signal.signal(sig, signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            raise RuntimeError(f"sig {sig} cannot be caught") from None
        raise


def _after_fork_in_child() -> None:
    """Restore the entries that the parent's loops replaced. The native side has restored the dispositions."""
    global _lock
    # Another thread of the parent may have held it; this process does not have that thread.
    _lock = RLock()
    for sig in signal.valid_signals():
        if isinstance(shared := signal.getsignal(sig), _Shared):
            signal.signal(sig, signal.SIG_DFL if shared.former is None else shared.former)


os.register_at_fork(after_in_child=_after_fork_in_child)
