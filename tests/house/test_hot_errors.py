"""No error is dropped where pyo3 does not know that the thread is attached: that would end the process."""

import sys

import pytest

from ..children import finish
from .hot_errors import CASES


@pytest.mark.parametrize("name", CASES)
def test_errors_are_raised(name: str) -> None:
    command = [sys.executable, "-X", "faulthandler", "-W", "ignore", "-m", "tests.house.hot_errors", name]
    done = finish(command)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
