"""Every way in which a test can end."""

import asyncio
import atexit
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import unittest


class Endings(unittest.TestCase):
    """Named for how they end."""

    def test_passes(self) -> None:
        asyncio.run(asyncio.sleep(0))

    def test_passes_after_another_one_died(self) -> None:
        assert threading.current_thread() is threading.main_thread()

    def test_fails(self) -> None:
        print("printed before the failure")
        self.fail("on purpose")

    def test_skips(self) -> None:
        self.skipTest("not here")

    def test_hangs(self) -> None:
        signal.pause()

    def test_crashes(self) -> None:
        faulthandler._sigsegv()  # type: ignore[attr-defined]

    def test_exits(self) -> None:
        os._exit(3)

    def test_crashes_at_exit(self) -> None:
        atexit.register(os.abort)

    def test_leaves_an_exception_behind(self) -> None:
        class Bomb:
            def __del__(self) -> None:
                raise ValueError("from a finaliser")

        Bomb()

    def test_leaves_a_process_behind(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        child.returncode = 0  # a forgotten process: no warning for it
