"""The module is the main interpreter's: a subinterpreter is refused, and the main one is not affected."""

import sys

import pytest

from .support import python

WORK = """
import asyncio, gc, sys
import _interpreters as interpreters
FIRST, KIND = sys.argv[1] == "first", sys.argv[2]
IMPORT = "import sys; sys.path[:] = %r" % sys.path + '''
for module in MODULES:
    try:
        __import__(module)
    except ImportError as error:
        assert "subinterpreter" in str(error), error
    else:
        raise AssertionError(module + " was loaded")
assert "tokioloop" not in sys.modules and "tokioloop._tokioloop" not in sys.modules, sorted(sys.modules)
'''

def elsewhere():
    for modules in (["tokioloop"], ["tokioloop._tokioloop", "tokioloop.loop"], ["tokioloop", "tokioloop"]):
        interpreter = interpreters.create(KIND)
        failed = interpreters.exec(interpreter, IMPORT.replace("MODULES", repr(modules)))
        interpreters.destroy(interpreter)
        assert failed is None, failed.formatted
        gc.collect()

def here():
    import tokioloop

    async def main():
        server = await asyncio.start_server(lambda r, w: (w.write(b"x"), w.close()), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b"x"
        writer.close()
        server.close()
        return await asyncio.create_task(asyncio.sleep(0.001, 5))

    assert tokioloop.run(main()) == 5
    gc.collect()

if not FIRST:
    here()
elsewhere()
here()
elsewhere()
here()
"""


@pytest.mark.parametrize("kind", ["legacy", "isolated"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_a_subinterpreter_is_refused(order, kind):
    python(WORK, order, kind)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters came with 3.14")
def test_by_the_public_module():
    python(
        """
        import asyncio, sys, tokioloop
        from concurrent import interpreters

        interpreter = interpreters.create()
        try:
            interpreter.exec("import sys; sys.path[:] = %r; import tokioloop" % sys.path)
        except interpreters.ExecutionFailed as error:
            assert "ImportError" in str(error) and "subinterpreter" in str(error), error
        else:
            raise AssertionError("it was loaded")
        interpreter.close()
        assert tokioloop.run(asyncio.sleep(0, 5)) == 5
        """
    )


def test_in_a_thread_while_the_main_interpreters_loop_runs():
    python(
        """
        import asyncio, sys, threading, tokioloop
        import _interpreters as interpreters

        def refused(kind):
            interpreter = interpreters.create(kind)
            failed = interpreters.exec(interpreter, "import sys; sys.path[:] = %r; import tokioloop" % sys.path)
            interpreters.destroy(interpreter)
            return failed.type.__name__

        async def main():
            going = asyncio.create_task(turns())
            kinds = ["legacy", "isolated"] * 3
            assert await asyncio.gather(*(asyncio.to_thread(refused, kind) for kind in kinds)) == ["ImportError"] * 6
            going.cancel()

        async def turns():
            while True:
                await asyncio.create_task(asyncio.sleep(0))

        tokioloop.run(main())
        """
    )
