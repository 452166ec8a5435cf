"""What is not built says so, after the argument errors asyncio has."""

import asyncio
import re

import pytest


def refuses(run, coro, what):
    with pytest.raises(NotImplementedError, match=f"^{re.escape(what)} is not supported by this version of"):
        run(coro)


def test_what_is_not_built_says_so(loop, run):
    refuses(run, loop.subprocess_exec(asyncio.SubprocessProtocol, "x"), "subprocesses (subprocess_exec)")
    refuses(run, loop.subprocess_shell(asyncio.SubprocessProtocol, "x"), "subprocesses (subprocess_shell)")


def test_false_means_no_tls(loop, run, listener):
    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.getsockname(), ssl=False)
        assert transport.get_extra_info("sslcontext") is None
        transport.abort()

    run(main())


def test_subprocess_argument_errors(loop, run):
    exe, shell = loop.subprocess_exec, loop.subprocess_shell
    factory = asyncio.SubprocessProtocol
    for coro, text in (
        (exe(factory, "x", universal_newlines=True), "universal_newlines must be False"),
        (exe(factory, "x", shell=True), "shell must be False"),
        (exe(factory, "x", bufsize=4096), "bufsize must be 0"),
        (exe(factory, "x", text=True), "text must be False"),
        (exe(factory, "x", encoding="utf8"), "encoding must be None"),
        (exe(factory, "x", errors="strict"), "errors must be None"),
        (shell(factory, 1), "cmd must be a string"),
        (shell(factory, "x", shell=False), "shell must be True"),
        (shell(factory, "x", bufsize=4096), "bufsize must be 0"),
    ):
        with pytest.raises(ValueError, match=f"^{text}$"):
            run(coro)


def test_start_tls_wants_a_context(loop, run):
    with pytest.raises(
        TypeError, match="^sslcontext is expected to be an instance of ssl.SSLContext, got 1$"
    ):
        run(loop.start_tls(None, None, 1))
