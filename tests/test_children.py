"""A program that hangs in a test is shown with its stacks, before pytest ends the whole run."""

import sys
import tomllib

import pytest

from .children import PATIENCE, ROOT, finish


def test_the_stacks_of_a_program_that_hangs():
    program = "import time\nprint('begun', flush=True)\ntime.sleep(1000)"
    with pytest.raises(
        AssertionError, match=r"(?s)no end.*begun.*most recent call first.*line 3 in <module>"
    ):
        finish([sys.executable, "-X", "faulthandler", "-c", program], patience=1)


def test_pytest_waits_longer():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert settings["faulthandler_timeout"] > PATIENCE + 20
