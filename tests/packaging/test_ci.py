"""The steps of continuous integration: linters, all tests, and the Python tests on 3.14t where it is available."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "run"
MAKE = """#!/bin/sh
echo "$CI $*" >> "$MADE"
for goal; do test "$goal" != "$BROKEN" || exit 3; done
"""


@pytest.fixture
def ci(tmp_path):
    """Runs the script in a checkout that holds nothing else, with a `make` that writes down its arguments."""
    script = tmp_path / "checkout" / ".ci" / "run"
    script.parent.mkdir(parents=True)
    shutil.copy2(SCRIPT, script)
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    make.write_text(MAKE)
    make.chmod(0o755)
    made = tmp_path / "made"

    def run(broken=""):
        path = f"{make.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "MADE": str(made), "BROKEN": broken}
        done = subprocess.run(
            [script], env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
        return done, made.read_text().splitlines()

    return run


@pytest.fixture
def builder(tmp_path):
    """A script beside the checkout that prints the path of its interpreter."""

    def write(text):
        [where] = re.findall(r"^builder=(\S+)$", SCRIPT.read_text(), re.MULTILINE)
        path = (tmp_path / "checkout" / where).resolve()
        path.parent.mkdir(parents=True)
        path.write_text(text)

    return write


def test_without_a_source_of_3_14t_its_part_is_skipped_with_a_message(ci):
    done, made = ci()
    assert done.returncode == 0
    assert made == ["true lint", "true test"]
    assert "left out" in done.stdout


def test_the_python_tests_run_on_the_interpreter_that_was_built(ci, builder):
    builder("echo some words; echo /there/python3.14t")
    done, made = ci()
    assert done.returncode == 0
    assert made == ["true lint", "true test", "true test-python PYTHON=/there/python3.14t VENV=.venv-3.14t"]
    assert "left out" not in done.stdout


@pytest.mark.parametrize("broken", ["lint", "test", "test-python"])
def test_whatever_fails_is_the_end_of_it(ci, builder, broken):
    builder("echo /there/python3.14t")
    done, made = ci(broken)
    assert done.returncode != 0
    assert made[-1].startswith(f"true {broken}")


def test_an_interpreter_that_does_not_build_fails(ci, builder):
    builder("echo the end of the output; exit 1")
    done, made = ci()
    assert done.returncode != 0
    assert made == ["true lint", "true test"]
