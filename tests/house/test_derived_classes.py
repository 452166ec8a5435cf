"""Python classes over native types, made at run time, are collected with their instances."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CODE = """
import gc, sys, threading, weakref
import tokioloop
from tokioloop import _tokioloop

def collected(make):
    # In a circle: the class has the instance, which counts as a reference to the class.
    def one():
        class Derived(make.base): pass
        Derived.instance = make(Derived)
        return weakref.ref(Derived)
    references = [one() for _ in range(3)]
    for _ in range(3):
        gc.collect()
    return [reference() for reference in references] == [None] * 3

def plain(kind): return kind()
plain.base = object
def a_loop(kind):
    made = kind(); made.close(); return made
a_loop.base = tokioloop.TokioLoop
def a_pool(kind):
    made = kind(threads=1); made.shutdown(); return made
a_pool.base = tokioloop.WorkerPool
def a_future(kind): return kind(loop=LOOP)
a_future.base = _tokioloop.Future
def a_reader(kind): return kind(loop=LOOP)
a_reader.base = _tokioloop.StreamReader

LOOP = tokioloop.TokioLoop()
make = globals()[sys.argv[1]]
got = collected(make)
# Free-threaded 3.13 keeps every class forever once there is a second thread.
print(got or not collected(plain))
LOOP.close()
"""


@pytest.mark.parametrize("kind", ["a_loop", "a_pool", "a_future", "a_reader"])
def test_a_class_made_at_run_time_is_collected(kind):
    done = subprocess.run(
        [sys.executable, "-c", CODE, kind], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "True\n"
