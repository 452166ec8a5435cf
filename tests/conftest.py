"""What all tests need of their process."""

import signal


def pytest_configure() -> None:
    # A job in the background of a shell starts with SIGINT ignored, and Python then leaves it so; tests of Control-C need
    # what a program on a terminal has.
    signal.signal(signal.SIGINT, signal.default_int_handler)
