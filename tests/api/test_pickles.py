"""Public names in pickles: they are named by the public module, and pickles from before the modules moved still load."""

import json
import pickle
import subprocess
import sys

import pytest

import tokioloop

# Where public names stood in 0.1.0 before the package had folders. This list never shrinks.
FORMER = {
    "_across": ["run_on"],
    "_crew": ["Worker", "current_worker"],
    "_install": ["install", "is_installed", "uninstall"],
    "_policy": ["EventLoopPolicy"],
    "_pool": ["PoolStats", "WorkerPool", "WorkerStats"],
    "_pool_server": ["LoopStats", "PoolServer", "ServerStats"],
    "_run": ["run"],
    "_spread": ["serve"],
    "_streams": [
        "StreamReader",
        "StreamReaderProtocol",
        "StreamWriter",
        "open_connection",
        "open_unix_connection",
        "start_server",
        "start_unix_server",
    ],
    "_tasks": ["format_call_graph", "print_tasks"],
    "_tokioloop": ["Future", "Task"],
    "loop": ["TokioLoop", "loops", "new_event_loop"],
}
PUBLIC_MODULES = {"tokioloop", "tokioloop.loop"}
NAMES = [name for name in tokioloop.__all__ if name not in ("__version__", "runtime", "tls")]

LOAD = """
import json, pickle, sys
for module, names in json.load(sys.stdin).items():
    for name in names:
        loaded = pickle.loads(f"ctokioloop.{module}\\n{name}\\n.".encode())
        import tokioloop
        assert loaded is getattr(tokioloop, name), name
print("loaded")
"""


def run_program(code: str, told: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], input=told, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("name", NAMES)
def test_public_things_name_the_public_module(name):
    thing = getattr(tokioloop, name)
    assert thing.__module__ in PUBLIC_MODULES
    assert pickle.loads(pickle.dumps(thing)) is thing


def test_former_names_are_all_of_today_s():
    assert sorted(name for names in FORMER.values() for name in names) == sorted(NAMES)


@pytest.mark.parametrize("module", FORMER)
def test_pickles_from_before_the_folders_load(module):
    """In a process that imports nothing of the package before it loads one."""
    assert run_program(LOAD, json.dumps({module: FORMER[module]})) == "loaded"


@pytest.mark.parametrize(
    "value",
    [
        tokioloop.LoopStats(3, 1),
        tokioloop.ServerStats((tokioloop.LoopStats(3, 1),), 3, 1),
        tokioloop.PoolStats(2, (tokioloop.WorkerStats(5, 1, 0),)),
        tokioloop.runtime.metrics(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_figures_can_be_pickled(value):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(value, protocol)
        assert pickle.loads(data) == value
        assert b"tokioloop._" not in data
