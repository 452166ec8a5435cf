"""Python decides which thread is the main one; signals at the end of a run are written to the descriptor's owner."""

from .support import python


def test_pythons_main_thread_need_not_be_the_processs() -> None:
    code = """
        import _thread, signal, threading

        here = threading.get_ident()
        main = []
        told = _thread._get_main_thread_ident
        # As in a program that made Python's interpreter in a thread of its own.
        _thread._get_main_thread_ident = lambda: main[0] if main else told()

        import tokioloop

        def wakeup():
            seen.append(signal.set_wakeup_fd(-1))
            signal.set_wakeup_fd(seen[-1])

        seen = []
        loop = tokioloop.TokioLoop()
        loop.call_soon(wakeup)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert seen.pop() >= 0  # The main thread's loop has the descriptor.

        main.append(here + 1)
        loop.call_soon(wakeup)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert seen.pop() == -1
        loop.close()
    """
    python(code)


def test_a_signal_while_a_run_ends_reaches_the_descriptors_owner() -> None:
    code = """
        import signal, socket, sys

        real, armed, numbers = signal.set_wakeup_fd, [], []

        def set_wakeup_fd(*args, **options):
            former = real(*args, **options)
            if armed:
                armed.pop()
                signal.raise_signal(signal.SIGUSR1)
            return former

        signal.set_wakeup_fd = set_wakeup_fd
        signal.signal(signal.SIGUSR1, lambda *args: numbers.append(args[0]))

        import tokioloop

        for taken in (False, True):  # Other code takes the descriptor while the loop runs, or has had it before.
            for steps in (1, 2):  # After the first step of giving it back, and after the second.
                near, far = socket.socketpair()
                near.setblocking(False)
                far.setblocking(False)
                loop = tokioloop.TokioLoop()

                def last():
                    if taken:
                        real(far.fileno())
                    armed.extend([True] * steps)
                    loop.stop()

                if not taken:
                    real(far.fileno())
                loop.call_soon(last)
                loop.run_forever()
                armed.clear()
                assert signal.SIGUSR1 in near.recv(10), (taken, steps)
                assert real(-1) == far.fileno()
                loop.close()
                near.close()
                far.close()
    """
    python(code)
