"""Two OpenSSLs in one process: OpenSSL is called directly only where it is certainly `_ssl`'s, and TLS works either way.

The second one is a copy of the first, or a library made here that offers the same functions and ends the process when one of
them is called. Each process is a fresh one.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .support import ROOT, python
from .tls_support import CERTIFICATES

# What our code calls, and what it called before; some of what `_ssl` does.
FUNCTIONS = re.findall(r"^    (\w+): fn\(", (ROOT / "src/sys/libssl/mod.rs").read_text(), re.M)
OTHERS = "SSL_new SSL_free SSL_CTX_new SSL_do_handshake SSL_want BIO_free BIO_s_mem ERR_get_error".split()

PROGRAM = """
    import ctypes, sys

    moment, certificates, *libraries = sys.argv[1:]

    def load(now):
        if now == moment:
            for path in libraries:
                ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)

    load("first")
    import asyncio, ssl
    load("after ssl")
    import tokioloop
    load("after tokioloop")
    engine = tokioloop._tokioloop._tls_engine()
    load("after the choice")

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{certificates}/server.pem", f"{certificates}/server.key")
    client = ssl.create_default_context(cafile=f"{certificates}/ca.pem")

    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def main():
        listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server)
        address = listening.sockets[0].getsockname()
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*address, ssl=client, server_hostname="localhost")
            writer.write(bytes(100_000))
            assert await reader.readexactly(100_000) == bytes(100_000)
            writer.close()
            await writer.wait_closed()
        listening.close()

    tokioloop.run(main())
    print(engine)
"""


def engine_chosen(moment, *libraries, **environment):
    """The engine in a process that loads the libraries at some moment, and that has served by it."""
    return python(PROGRAM, moment, str(CERTIFICATES), *map(str, libraries), **environment).stdout.strip()


def compiled(directory, name, source, *options):
    path = directory / f"{name}.so"
    (directory / f"{name}.c").write_text(source)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", path, directory / f"{name}.c", *options],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """libcrypto and libssl once more, from other files; skips where `_ssl` has them inside itself."""
    here = python(
        "import ssl; print(*{line.split()[-1] for line in open('/proc/self/maps') if 'libssl' in line or 'libcrypto' in line})"
    ).stdout.split()
    paths = sorted(path for path in here if re.search(r"/lib(crypto|ssl)\.so[.0-9]*$", path))
    if len(paths) != 2:
        pytest.skip("this interpreter's ssl module has no shared libssl and libcrypto")
    directory = tmp_path_factory.mktemp("copies")
    return [Path(shutil.copy(path, directory)) for path in paths]


@pytest.fixture(scope="module")
def strangers(copies, tmp_path_factory):
    """The copies under other names, as packages bring them: the two OpenSSLs then stand side by side, of one version."""
    directory = tmp_path_factory.mktemp("strangers")
    paths = []
    for path in copies:
        data = path.read_bytes()
        for copy in copies:
            name = copy.name.encode()
            # Of the same length, since the name is in a table.
            data = data.replace(b"\0" + name + b"\0", b"\0" + name.replace(b"lib", b"bil") + b"\0")
        paths.append(directory / path.name.replace("lib", "bil"))
        paths[-1].write_bytes(data)
    return paths


@pytest.fixture(scope="module")
def deadly(tmp_path_factory):
    """The same functions under a version of their own, so that `_ssl` does not take them for its own."""
    directory = tmp_path_factory.mktemp("deadly")
    names = [*FUNCTIONS, *OTHERS]
    (directory / "versions").write_text("DEADLY_9 { global: *; };\n")
    source = "#include <stdlib.h>\n" + "".join(f"void *{name}(void) {{ abort(); }}\n" for name in names)
    return compiled(directory, "libdeadly", source, f"-Wl,--version-script={directory}/versions")


# It passes the calls on: a tool that listens does this.
LISTENER = """
    #include <dlfcn.h>
    #include <stddef.h>
    #include <unistd.h>

    int SSL_read_ex(void *ssl, void *start, size_t len, size_t *count) {
        static int (*next)(void *, void *, size_t, size_t *);
        if (!next) { next = dlsym(dlopen(LIBSSL, RTLD_LAZY | RTLD_NOLOAD), "SSL_read_ex"); write(2, "heard\\n", 6); }
        return next(ssl, start, len, count);
    }
"""

MOMENTS = pytest.mark.parametrize("moment", ["first", "after ssl", "after tokioloop"])


def test_alone_it_is_called_directly(copies):
    assert engine_chosen("never") == "direct"


@MOMENTS
def test_another_library_that_must_not_be_called(deadly, moment):
    assert engine_chosen(moment, deadly) == "memory-bio"


def test_another_library_that_must_not_be_called_and_was_there_before_the_program(deadly):
    assert engine_chosen("never", LD_PRELOAD=str(deadly)) == "memory-bio"


def test_another_library_that_comes_after_the_choice(deadly, copies):
    assert engine_chosen("after the choice", deadly) == "direct"


@MOMENTS
def test_a_stranger(strangers, moment):
    assert engine_chosen(moment, *strangers) == "memory-bio"


@MOMENTS
def test_half_a_stranger(strangers, moment):
    """Here `_ssl` itself may mix the two, and then nothing works; but the choice can be made."""
    program = """
        import ctypes, sys
        moment, path = sys.argv[1:]
        if moment == "first":
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        import ssl
        if moment == "after ssl":
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        import tokioloop
        if moment == "after tokioloop":
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        print(tokioloop._tokioloop._tls_engine())
    """
    assert python(program, moment, str(strangers[0])).stdout.strip() == "memory-bio"


def test_a_stranger_that_was_there_before_the_program(strangers):
    assert engine_chosen("never", LD_PRELOAD=" ".join(map(str, strangers))) == "memory-bio"


def test_a_stranger_that_keeps_to_itself(strangers):
    """Most packages load theirs so."""
    program = f"""
        import ctypes
        for path in {[str(path) for path in strangers]!r}:
            ctypes.CDLL(path)
        import tokioloop
        print(tokioloop._tokioloop._tls_engine())
    """
    assert python(program).stdout.strip() == "direct"


def test_the_one_that_is_loaded_first_and_has_the_name_is_the_one(copies):
    assert engine_chosen("first", *copies) == "direct"
    assert engine_chosen("never", LD_PRELOAD=" ".join(map(str, copies))) == "direct"


def test_a_library_that_listens(copies, tmp_path):
    listener = compiled(tmp_path, "listener", LISTENER, f'-DLIBSSL="{copies[1].name}"')
    done = python(PROGRAM, "never", str(CERTIFICATES), LD_PRELOAD=str(listener))
    assert done.stdout.strip() == "memory-bio"
    assert "heard" in done.stderr


def test_a_library_that_is_not_the_one_connections_come_from(strangers, tmp_path):
    """As where `_ssl` has an OpenSSL inside it and depends on something that brings another: nothing global distinguishes the two."""
    user = compiled(tmp_path, "user", "void *user;\n", "-Wl,--no-as-needed", *map(str, strangers))
    program = f"""
        import _ssl, ctypes, ssl
        for path in {[str(path) for path in [*strangers, user]]!r}:
            ctypes.CDLL(path)
        _ssl.__file__ = {str(user)!r}
        import tokioloop
        print(tokioloop._tokioloop._tls_engine())
    """
    assert python(program).stdout.strip() == "memory-bio"


def test_direct_is_not_to_be_had_where_it_was_refused(deadly):
    program = f"""
        import ctypes
        ctypes.CDLL({str(deadly)!r}, mode=ctypes.RTLD_GLOBAL)
        import tokioloop
        try:
            tokioloop._tokioloop._tls_engine("direct")
        except ValueError:
            print("refused")
    """
    assert python(program).stdout.strip() == "refused"
