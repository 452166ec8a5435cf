"""The GIL watch: one warning, which names the module or setting that turned the GIL on."""

import os
import shutil
import subprocess
import sysconfig

import pytest

from tests.loop.support import python

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

WATCH = """
import sys, warnings
import tokioloop
from tokioloop._loop.gil import warn_if_gil_is_on

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    IMPORTS
    del caught[:]  # the interpreter's own, about the import
    answers = [warn_if_gil_is_on() for _ in range(3)]
for warning in caught:
    print(warning.category.__name__, warning.message)
assert answers == [sys._is_gil_enabled()] * 3
"""

MODULE = """
#include <Python.h>
static PyModuleDef_Slot slots[] = {ENTRIES {0, NULL}};
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, .m_name = "NAME", .m_slots = PHASES ? slots : NULL};
PyMODINIT_FUNC PyInit_NAME(void) { return PHASES ? PyModuleDef_Init(&def) : PyModule_Create(&def); }
"""


def watch(imports="pass", **environ):
    return python(WATCH.replace("IMPORTS", imports), **environ).stdout.splitlines()


@pytest.fixture
def build(tmp_path):
    """Make an extension module: in several phases with *slots*, or in one."""
    compiler = shutil.which("cc")
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    if compiler is None or not os.path.exists(header):
        pytest.skip("needs a C compiler and Python's headers")

    def build(name, slots=None):
        source = tmp_path / f"{name}.c"
        text = MODULE.replace("NAME", name).replace("ENTRIES", slots or "")
        source.write_text(text.replace("PHASES", str(int(slots is not None))))
        target = tmp_path / (name + sysconfig.get_config_var("EXT_SUFFIX"))
        include = f"-I{sysconfig.get_path('include')}"
        subprocess.run([compiler, "-shared", "-fPIC", include, str(source), "-o", str(target)], check=True)
        return f"sys.path.insert(0, {str(tmp_path)!r}); import {name}"

    return build


@pytest.mark.skipif(not FREE_THREADED, reason="needs a free-threaded build")
def test_no_warning_while_the_gil_is_off():
    assert watch(PYTHON_GIL="") == []


@pytest.mark.skipif(not FREE_THREADED, reason="needs a free-threaded build")
def test_the_environment_is_named():
    [line] = watch(PYTHON_GIL="1")
    assert (
        line == "RuntimeWarning the GIL is on, so threads run Python code in turns: PYTHON_GIL=1 asks for it"
    )


@pytest.mark.skipif(not FREE_THREADED, reason="needs a free-threaded build")
def test_a_module_without_a_declaration_is_named(build):
    [line] = watch(build("says_nothing", slots=""), PYTHON_GIL="")
    assert line.endswith(": the extension module 'says_nothing' does not declare to work without it")


@pytest.mark.skipif(not FREE_THREADED, reason="needs a free-threaded build")
def test_a_module_that_uses_the_gil_is_named_and_others_are_not(build):
    imports = build("needs_none", slots="{Py_mod_gil, Py_MOD_GIL_NOT_USED},")
    assert watch(imports, PYTHON_GIL="") == []
    imports += "; " + build("needs_it", slots="{Py_mod_gil, Py_MOD_GIL_USED},")
    [line] = watch(imports, PYTHON_GIL="")
    assert line.endswith(": the extension module 'needs_it' does not declare to work without it")


@pytest.mark.skipif(not FREE_THREADED, reason="needs a free-threaded build")
def test_a_module_of_one_phase_is_named_with_perhaps(build):
    [line] = watch(build("one_phase"), PYTHON_GIL="")
    assert line.endswith(": perhaps the extension module 'one_phase' does not declare to work without it")


@pytest.mark.skipif(FREE_THREADED, reason="needs a build with the GIL")
def test_a_build_with_the_gil_warns():
    [line] = watch()
    assert line.startswith("RuntimeWarning this build of Python has the GIL")
