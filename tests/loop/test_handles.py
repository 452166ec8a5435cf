"""Handle and TimerHandle in every state; a reused handle never shows through an old reference."""

import asyncio
import contextvars
import gc
import threading
import weakref

import pytest

from .support import collected, python


def callback(*args):
    pass


def test_handles_are_asyncio_handles_to_isinstance(loop):
    assert isinstance(loop.call_soon(callback), asyncio.Handle)
    assert not isinstance(loop.call_soon(callback), asyncio.TimerHandle)
    assert isinstance(loop.call_later(1, callback), asyncio.TimerHandle)
    assert isinstance(loop.call_later(1, callback), asyncio.Handle)


def test_repr_in_every_state(loop, turn):
    handle = loop.call_soon(callback, 1, "two")
    assert repr(handle).startswith("<Handle ") and "callback" in repr(handle)
    shown = []
    running = loop.call_soon(lambda: shown.append(repr(running)))
    turn()
    assert "lambda" in shown[0]
    assert "callback" in repr(handle)
    handle = loop.call_soon(callback)
    handle.cancel()
    assert repr(handle) == "<Handle cancelled>"
    timer = loop.call_at(12.5, callback)
    assert "when=12.5" in repr(timer)
    timer.cancel()
    assert repr(timer).startswith("<TimerHandle cancelled when=12.5")


def test_repr_in_debug_mode_names_where_it_was_made(loop):
    loop.set_debug(True)
    handle = loop.call_soon(callback)
    assert f"created at {__file__}:" in repr(handle)
    handle.cancel()
    assert repr(handle).startswith("<Handle cancelled") and "created at" in repr(handle)


def test_cancel_before_the_run(loop, turn):
    got = []
    handle = loop.call_soon(got.append, 1)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    assert handle._callback is None and handle._args is None
    turn()
    assert got == []


def test_cancel_by_the_callback_before_it(loop, turn):
    got = []
    loop.call_soon(lambda: later.cancel())
    later = loop.call_soon(got.append, 1)
    turn()
    assert got == []


def test_cancel_while_running_keeps_callback_and_arguments_alive(loop, turn, contexts):
    got = []

    class Payload:
        def __call__(self, argument, *more):
            handle.cancel()
            gc.collect()
            got.append((self.word, argument.word, more))
            raise LookupError("after the cancellation")

        word = "alive"

    handle = loop.call_soon(Payload(), Payload(), Payload(), Payload())
    turn()
    assert got[0][:2] == ("alive", "alive")
    assert isinstance(contexts[0]["exception"], LookupError)
    assert handle.cancelled()


def test_cancelling_releases_the_handles_contents(loop):
    class Payload:
        def __call__(self):
            pass

    payload = Payload()
    reference = weakref.ref(payload)
    handles = [loop.call_soon(payload), loop.call_later(10, callback, payload)]
    del payload
    for handle in handles:
        handle.cancel()
    assert collected(reference)


def test_a_kept_handle_never_shows_the_callback_of_another(loop, turn):
    got = []
    first = loop.call_soon(callback, "first")
    turn()
    for n in range(100):
        loop.call_soon(got.append, n)
    assert first._callback is callback and first._args == ("first",)
    first.cancel()
    turn()
    assert got == list(range(100)), "cancelling an old handle cancelled another's callback"


@pytest.mark.parametrize("schedule", ["call_soon", "call_later"])
def test_a_weakly_referenced_handle_is_not_used_again(loop, turn, schedule):
    args = (0,) if schedule == "call_later" else ()
    references = [weakref.ref(getattr(loop, schedule)(*args, callback)) for _ in range(3)]
    assert all(reference() is not None for reference in references), "the queue holds them"
    turn()
    turn()
    assert all(collected(reference) for reference in references)


def test_a_handle_captured_while_it_runs_is_not_used_again(loop, turn):
    kept = []
    loop.set_debug(True)
    loop.call_soon(lambda: kept.append(loop._current_handle))
    turn()
    loop.set_debug(False)
    assert kept[0] is not None
    before = repr(kept[0])
    for _ in range(10):
        loop.call_soon(callback)
    assert repr(kept[0]) == before


def test_a_captured_handle_of_a_failed_callback_keeps_its_story(loop, turn, contexts):
    def fail(argument):
        raise LookupError

    loop.call_soon(fail, "argument")
    turn()
    for _ in range(10):
        loop.call_soon(callback)
    turn()
    handle = contexts[0]["handle"]
    assert handle._callback is fail and handle._args == ("argument",)
    handle.cancel()


def test_run_by_hand(loop, contexts):
    got = []
    handle = loop.call_soon(got.append, 1)
    handle._run()
    assert got == [1]
    failing = loop.call_soon(lambda: 1 / 0)
    failing._run()
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)


def test_running_a_cancelled_handle_by_hand_is_harmless():
    """It crashed the interpreter."""
    python(
        """
        import tokioloop
        loop = tokioloop.TokioLoop()
        loop.set_exception_handler(lambda loop, context: None)
        for handle in (loop.call_soon(print, 1), loop.call_later(1, print, 1, 2, 3)):
            handle.cancel()
            handle._run()
            loop._schedule(handle)
        loop.stop()
        loop.run_forever()
        loop.close()
        """
    )


def test_get_context(loop):
    context = contextvars.Context()
    assert loop.call_soon(callback, context=context).get_context() is context
    assert isinstance(loop.call_soon(callback).get_context(), contextvars.Context)


def test_handles_cannot_be_made_without_a_loop(loop):
    for handle in (loop.call_soon(callback), loop.call_later(1, callback)):
        with pytest.raises(TypeError):
            type(handle)()


def test_timers_order_and_compare_by_their_time(loop):
    early, late = loop.call_at(1, callback), loop.call_at(2, callback)
    assert early < late and late > early and early <= late and late >= early
    assert early != late and early == early and hash(early) == hash(1.0)
    twin = loop.call_at(1, callback)
    assert twin == early
    twin.cancel()
    assert twin != early
    assert (early == 1) is False
    with pytest.raises(TypeError):
        early < 1  # noqa: B015


def test_cancelling_after_close_is_harmless(loop):
    handles = [loop.call_later(100 + n, callback) for n in range(500)] + [loop.call_soon(callback)]
    loop.close()
    for handle in handles:
        handle.cancel()
        assert handle.cancelled()


def test_looking_at_a_handle_that_another_thread_cancels():
    """Fields were read without the claim: a panic, and in principle freed memory."""
    python(
        """
        import threading, tokioloop

        class Payload:
            def __call__(self, *args):
                pass

        loop = tokioloop.TokioLoop()
        barrier = threading.Barrier(2)
        box = [None]
        ROUNDS = 4000

        def cancel():
            for _ in range(ROUNDS):
                barrier.wait()
                box[0].cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        for n in range(ROUNDS):
            handle = box[0] = loop.call_later(100, Payload(), Payload(), Payload())
            barrier.wait()
            repr(handle), handle._callback, handle._args, handle == handle, handle.cancelled()
        thread.join()
        loop.close()
        """
    )


def test_cancelling_from_a_foreign_thread_is_refused_while_the_loop_runs(elsewhere):
    handle = elsewhere.call(elsewhere.loop.call_later, 100, callback)
    for look in (handle.cancel, lambda: handle._callback, lambda: handle._args, handle._run):
        with pytest.raises(RuntimeError, match="elsewhere"):
            look()
    assert not handle.cancelled()
    assert "TimerHandle" in repr(handle)
    assert handle.when() > 0
    assert isinstance(handle.get_context(), contextvars.Context)


def test_the_last_reference_may_go_in_another_thread(loop, turn):
    for _ in range(200):
        handles = [loop.call_soon(callback, object()), loop.call_later(10, callback, object())]
        turn()
        thread = threading.Thread(target=handles.clear)
        thread.start()
        thread.join()
    assert not handles


@pytest.mark.parametrize("how", ["soon", "later", "cancelled", "threadsafe", "run"])
def test_a_long_chain_of_handles_is_freed_without_recursion(how):
    """Each handle is the last to refer to the next; freeing them by recursion overflowed the stack."""
    python(
        """
        import sys, threading, tokioloop
        loop = tokioloop.TokioLoop()

        def chain(make):
            handle = None
            for _ in range(100_000):
                handle = make(repr, handle)

        how = sys.argv[1]
        if how == "soon":
            chain(loop.call_soon)
        elif how in ("later", "cancelled"):
            made = []
            chain(lambda *args: made.append(loop.call_later(100, *args)) or made[-1])
            if how == "cancelled":
                made.pop().cancel()
            made.clear()
        elif how == "threadsafe":
            thread = threading.Thread(target=chain, args=(loop.call_soon_threadsafe,))
            loop.call_soon(lambda: (thread.start(), thread.join(), loop.stop()))
            loop.run_forever()
        else:
            handle = None
            for _ in range(100_000):
                handle = loop._make_handle(bool, (handle,))
            loop._schedule(handle)
            del handle
            loop.stop()
            loop.run_forever()
        loop.close()
        """,
        how,
    )
