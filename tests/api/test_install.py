"""install, uninstall and the policy."""

import asyncio
import inspect
import subprocess
import sys
import threading
import warnings
from asyncio import events

import pytest

import tokioloop

from .streams_support import echo

NAMES = [(space, name) for space in (asyncio, events) for name in ("get_event_loop", "get_running_loop")]


@pytest.fixture(autouse=True)
def uninstalled():
    assert not tokioloop.is_installed()
    yield
    tokioloop.uninstall()


def snapshot():
    return [getattr(space, name) for space, name in NAMES] + [events._event_loop_policy]


def in_thread(function):
    results = []

    def work():
        try:
            results.append(function())
        except BaseException as exc:
            results.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return results[0]


def test_uninstall_restores_the_previous_state_exactly():
    before = snapshot()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokioloop.install()
        assert tokioloop.is_installed()
        during = snapshot()
        tokioloop.uninstall()
    assert not tokioloop.is_installed()
    assert all(old is not new for old, new in zip(before, during, strict=True))
    assert all(old is new for old, new in zip(before, snapshot(), strict=True))


def test_a_policy_of_the_program_is_restored():
    class Policy(type(events._event_loop_policy) if events._event_loop_policy else tokioloop.EventLoopPolicy):
        pass

    mine, before = Policy(), events._event_loop_policy
    events._event_loop_policy = mine
    try:
        tokioloop.install()
        tokioloop.uninstall()
        assert events._event_loop_policy is mine
    finally:
        events._event_loop_policy = before


def test_installing_twice_is_harmless():
    before = snapshot()
    tokioloop.install()
    during = snapshot()
    tokioloop.install()
    assert all(old is new for old, new in zip(during, snapshot(), strict=True))
    tokioloop.uninstall()
    tokioloop.uninstall()
    assert all(old is new for old, new in zip(before, snapshot(), strict=True))


def test_functions_replaced_meanwhile_stay(monkeypatch):
    tokioloop.install()
    wrapper = lambda: None  # noqa: E731
    monkeypatch.setattr(asyncio, "get_event_loop", wrapper)
    tokioloop.uninstall()
    assert asyncio.get_event_loop is wrapper
    monkeypatch.undo()
    # monkeypatch restored the functions of install(); leave the namespace as it was before the test.
    asyncio.get_event_loop = events.get_event_loop


def test_install_from_many_threads_at_once():
    before = snapshot()
    start = threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(50):
            tokioloop.install()
            tokioloop.uninstall()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not tokioloop.is_installed()
    assert all(old is new for old, new in zip(before, snapshot(), strict=True))


def test_new_loops_are_ours_while_installed():
    tokioloop.install()
    loop = asyncio.new_event_loop()
    assert isinstance(loop, tokioloop.TokioLoop)
    loop.close()

    async def main():
        return asyncio.get_running_loop()

    assert isinstance(asyncio.run(main()), tokioloop.TokioLoop)
    tokioloop.uninstall()
    assert not isinstance(asyncio.run(main()), tokioloop.TokioLoop)


def test_each_worker_thread_finds_its_own_loop():
    early = asyncio.get_event_loop
    tokioloop.install()

    def work():
        loop = tokioloop.TokioLoop()
        try:
            assert asyncio.get_event_loop() is loop
            assert events.get_event_loop() is loop
            assert early() is loop
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()

            async def main():
                return {
                    asyncio.get_running_loop(),
                    asyncio.get_event_loop(),
                    early(),
                    events.get_running_loop(),
                }

            return loop.run_until_complete(main()) == {loop}
        finally:
            loop.close()

    assert in_thread(work) is True
    assert in_thread(work) is True


def test_worker_thread_without_a_loop_gets_asyncio_s_answer():
    tokioloop.install()
    error = in_thread(asyncio.get_event_loop)
    assert isinstance(error, RuntimeError)
    assert str(error).startswith("There is no current event loop in thread 'Thread-")


def test_set_event_loop_decides():
    tokioloop.install()

    def work():
        one, two = tokioloop.TokioLoop(), tokioloop.TokioLoop()
        other = asyncio.SelectorEventLoop()
        try:
            asyncio.set_event_loop(two)
            assert asyncio.get_event_loop() is two
            asyncio.set_event_loop(other)
            assert asyncio.get_event_loop() is other
            asyncio.set_event_loop(one)
            assert asyncio.get_event_loop() is one
            asyncio.set_event_loop(None)
            with pytest.raises(RuntimeError, match="There is no current event loop in thread"):
                asyncio.get_event_loop()
            with pytest.raises(TypeError, match="loop must be an instance of AbstractEventLoop or None"):
                asyncio.set_event_loop("x")
            return True
        finally:
            for loop in (one, two, other):
                loop.close()

    assert in_thread(work) is True


def test_asyncio_s_own_loop_still_runs_while_installed():
    tokioloop.install()

    async def main():
        return asyncio.get_running_loop(), asyncio.get_event_loop()

    loop = asyncio.SelectorEventLoop()
    try:
        assert loop.run_until_complete(main()) == (loop, loop)
    finally:
        loop.close()


def test_install_makes_asyncios_functions_native_on_our_loops():
    async def kinds():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.streams.open_connection(*server.sockets[0].getsockname())
        writer.close()
        server.close()
        return type(reader), type(writer)

    originals = asyncio.open_connection, asyncio.start_server
    tokioloop.install()
    try:
        assert asyncio.open_connection.__name__ == "open_connection"
        assert inspect.iscoroutinefunction(asyncio.open_connection)
        assert tokioloop.run(kinds()) == (tokioloop.StreamReader, tokioloop.StreamWriter)
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            assert runner.run(kinds()) == (asyncio.StreamReader, asyncio.StreamWriter)
    finally:
        tokioloop.uninstall()
    assert (asyncio.open_connection, asyncio.start_server) == originals


def test_policy_by_itself():
    policy = tokioloop.EventLoopPolicy()
    loop = policy.new_event_loop()
    try:
        assert isinstance(loop, tokioloop.TokioLoop)
        policy.set_event_loop(loop)
        assert policy.get_event_loop() is loop
        policy.set_event_loop(None)
        with pytest.raises(RuntimeError, match="There is no current event loop in thread"):
            policy.get_event_loop()
    finally:
        loop.close()


def test_import_is_quiet_and_installs_nothing():
    code = (
        "import asyncio; before = asyncio.get_event_loop, asyncio.events._event_loop_policy\n"
        "import tokioloop\n"
        "assert (asyncio.get_event_loop, asyncio.events._event_loop_policy) == before\n"
        "assert not tokioloop.is_installed()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
