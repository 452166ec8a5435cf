"""Exception handlers: for errors that no code awaits."""

from __future__ import annotations

import traceback
from asyncio import Task
from collections.abc import Callable

from .._tokioloop import EventLoop
from .log import logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

type Context = dict[str, Any]
type ExceptionHandler = Callable[[Any, Context], object]

_TRACEBACKS = {
    "source_traceback": "Object created at (most recent call last):\n",
    "handle_traceback": "Handle created at (most recent call last):\n",
}


class Errors(EventLoop):
    """Exception handlers, with asyncio's contexts and messages."""

    _exception_handler: ExceptionHandler | None = None

    def get_exception_handler(self) -> ExceptionHandler | None:
        """Return the handler set by ``set_exception_handler``, or None while the default one is used."""
        return self._exception_handler

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        """Send errors to ``handler(loop, context)``; None goes back to the default handler.

        Raises TypeError for what is neither callable nor None, and RuntimeError when the loop runs in
        another thread.
        """
        self._check_thread()
        if handler is not None and not callable(handler):
            raise TypeError(f"A callable object or None is expected, got {handler!r}")
        self._exception_handler = handler

    def default_exception_handler(self, context: Context) -> None:
        """Log the error that *context* describes. May be called from any thread."""
        exception = context.get("exception")
        if "source_traceback" not in context:
            try:
                handle = self._current_handle
            except RuntimeError:
                # The loop runs in another thread: its current handle did not cause this.
                handle = None
            if handle is not None and handle._source_traceback:
                context["handle_traceback"] = handle._source_traceback

        lines = [context.get("message") or "Unhandled exception in event loop"]
        for key in sorted(context):
            if key in ("message", "exception"):
                continue
            value = context[key]
            heading = _TRACEBACKS.get(key)
            if heading is None:
                lines.append(f"{key}: {value!r}")
            else:
                lines.append(f"{key}: {heading}{''.join(traceback.format_list(value)).rstrip()}")
        # The exception is passed as a triple: it may have been caught elsewhere, or in another thread.
        logger.error(
            "\n".join(lines),
            exc_info=False if exception is None else (type(exception), exception, exception.__traceback__),
        )

    def call_exception_handler(self, context: Context) -> None:
        """Hand *context* to the handler in use. May be called from any thread.

        A handler that fails is itself reported to the default handler; SystemExit and KeyboardInterrupt
        pass through.
        """
        handler = self._exception_handler
        if handler is None:
            try:
                self.default_exception_handler(context)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:
                logger.error("Exception in default exception handler", exc_info=True)
            return
        try:
            run = _context_runner(context)
            if run is None:
                handler(self, context)
            else:
                run(handler, self, context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report_failed_handler(exc, context)

    def _report_failed_handler(self, exc: BaseException, context: Context) -> None:
        try:
            self.default_exception_handler(
                {"message": "Unhandled error in exception handler", "exception": exc, "context": context}
            )
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            logger.error(
                "Exception in default exception handler while handling an unexpected error "
                "in custom exception handler",
                exc_info=True,
            )

    def _log_slow_callback(self, handle: object, seconds: float) -> None:
        # A task's step says more than the handle that ran it.
        owner = getattr(getattr(handle, "_callback", None), "__self__", None)
        shown = repr(owner) if isinstance(owner, Task) else str(handle)
        logger.warning("Executing %s took %.3f seconds", shown, seconds)


def _context_runner(context: Context) -> Callable[..., object] | None:
    """Find how to run a handler in the context of the task, future or handle that failed."""
    for key in ("task", "future", "handle"):
        thing = context.get(key)
        if thing is not None:
            break
    else:
        return None
    # A plain Future has no context; a Task is often under the key "future".
    if not hasattr(thing, "get_context"):
        return None
    return getattr(thing.get_context(), "run", None)
