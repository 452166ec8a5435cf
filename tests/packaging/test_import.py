"""The effects of `import tokioloop` on an interpreter, seen from outside: a fresh process each time."""

import subprocess
import sys
import sysconfig

import pytest

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

WORKOUT = """
import asyncio, threading, tokioloop

async def serve_and_call():
    async def answer(reader, writer):
        writer.write(await reader.readline())
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\\n")
        assert await reader.read() == b"hello\\n"
        writer.close()
        await writer.wait_closed()

threads = [threading.Thread(target=lambda: tokioloop.run(serve_and_call())) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def run_python(code: str, *options: str) -> str:
    """Run `code` in a fresh interpreter in which every warning is an error; what it printed."""
    answer = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stderr
    return answer.stdout.strip()


@pytest.mark.skipif(not FREE_THREADED, reason="this interpreter has the GIL")
@pytest.mark.parametrize("before", ["", "import asyncio; "], ids=["alone", "after asyncio"])
def test_import_keeps_the_gil_off(before: str) -> None:
    code = f"{before}import tokioloop, sys; print(sys._is_gil_enabled())"
    assert run_python(code) == "False"


@pytest.mark.skipif(not FREE_THREADED, reason="this interpreter has the GIL")
def test_running_loops_keeps_the_gil_off() -> None:
    assert run_python(WORKOUT + "import sys; print(sys._is_gil_enabled())") == "False"


def test_import_starts_no_thread() -> None:
    code = "import tokioloop, os; print(len(os.listdir('/proc/self/task')))"
    assert run_python(code) == "1"


def test_import_leaves_asyncio_as_it_was() -> None:
    names = "(asyncio.get_event_loop, asyncio.get_running_loop, asyncio.events.get_event_loop, asyncio.run)"
    code = f"import asyncio; was = {names}; import tokioloop; print(was == {names}, tokioloop.is_installed())"
    assert run_python(code) == "True False"


def test_import_opens_no_file_descriptor() -> None:
    code = "import os, asyncio; was = os.listdir('/proc/self/fd'); import tokioloop; print(was == os.listdir('/proc/self/fd'))"
    assert run_python(code) == "True"


def test_every_public_name_is_there() -> None:
    code = "import tokioloop; print([name for name in tokioloop.__all__ if not hasattr(tokioloop, name)])"
    assert run_python(code) == "[]"


def test_the_version_is_the_package_s() -> None:
    code = "import tokioloop, importlib.metadata as m; print(tokioloop.__version__ == m.version('tokioloop'))"
    assert run_python(code) == "True"


def test_an_unsupported_platform_gets_an_import_error() -> None:
    code = """
import sys
sys.platform = "win32"
try:
    import tokioloop
except ImportError as error:
    print(error)
"""
    told = run_python(code)
    assert "win32" in told
    assert "Linux" in told
