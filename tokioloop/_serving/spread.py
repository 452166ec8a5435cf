"""serve: one server over several loops, from the caller's arguments to sockets for each loop."""

import socket
from collections.abc import Sequence
from inspect import iscoroutinefunction
from os import PathLike, fspath
from typing import Any, cast

from .._loop.public import public
from .._net.names import AddrInfo, Host, Port
from .._net.serve import Serve, bind_unix, check_server_ssl, hosts_of
from .._net.sockets import check_stream, refuse_ssl_socket
from .._net.streams import stream_factory
from .._net.tls import Security, ServerTerms
from ..loop import TokioLoop
from .server import Accept, Factory, PoolServer, Share, StreamsCallback, on

# How often to look for a port that is free on every address.
PORT_ATTEMPTS = 16


@public
async def serve(
    loops: Sequence[Serve],
    make: Factory | StreamsCallback,
    host: Host | Sequence[Host] = None,
    port: Port = None,
    *,
    accept: Accept = "reuseport",
    sock: socket.socket | None = None,
    path: "str | bytes | PathLike[str] | PathLike[bytes] | None" = None,
    ssl: ServerTerms | None = None,
    backlog: int = 100,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    reuse_address: bool | None = None,
    keep_alive: bool | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    streams: bool | None = None,
    limit: int = 2**16,
    cleanup_socket: bool = True,
) -> PoolServer:
    """Serve on several loops: each connection belongs to one of them, whose thread makes its protocol and its transport.

    loops: TokioLoops that run, each once; they must run until this returns. It may be awaited on any asyncio loop.
    make: a protocol factory, as for ``create_server``, or a streams callback taking a reader and a writer, as for
        ``asyncio.start_server``. With streams=None a coroutine function is a callback and anything else a factory.
    host, port: as for ``create_server``; with port 0, all loops and all addresses get the same free port. Or
    sock: a bound stream socket, which the server duplicates and closes when it closes; not with "reuseport". Or
    path: that of a Unix socket; not with "reuseport".
    accept: "reuseport", a listening socket for each loop, among which the kernel spreads connections by a hash; "shared", one
        for all, where a connection wakes one loop that sleeps; "balance", where the first loop accepts and hands
        each connection to the loop with the fewest of this server, in turn where several have equally many.
    ssl and its timeouts in seconds, backlog, family, flags, reuse_address, keep_alive, cleanup_socket: as for ``create_server``
        and ``create_unix_server``. limit: of a stream's reader, in bytes.

    Raises OSError when an address cannot be bound, ValueError and TypeError for arguments that do not fit, RuntimeError
    for a loop that does not run. If it fails on one loop, nothing listens on any.
    """
    loops = list(loops)
    _check_arguments(loops, accept, host, port, sock, path)
    check_server_ssl(ssl, ssl is not None, ssl_handshake_timeout, ssl_shutdown_timeout)
    given = sock is not None
    reuses = reuse_address is None or reuse_address
    if sock is not None:
        refuse_ssl_socket(sock)
        check_stream(sock)
        bound = [sock]
    elif path is not None:
        bound = [bind_unix(fspath(path))]
    else:
        infos = await on(loops[0], lambda: loops[0]._resolve_hosts(hosts_of(host), port, family, flags))
        bound = _bind_one_port(loops[0], infos, reuses, accept == "reuseport", keep_alive)
    try:
        addresses = [sock.getsockname() for sock in bound]
        own = _sockets_of_each(loops, bound, accept, keep_alive, reuses)
    except BaseException:
        # A socket of the caller's stays the caller's.
        for sock in () if given else bound:
            sock.close()
        raise
    server = PoolServer([] if accept == "reuseport" else bound, addresses, ours=not given)
    takes_streams = iscoroutinefunction(make) if streams is None else streams
    security = Security(ssl, ssl_handshake_timeout, ssl_shutdown_timeout, server_side=True) if ssl else None
    shares = []
    for loop, sockets in zip(loops, own, strict=True):
        factory = stream_factory(cast("Any", loop), make, limit) if takes_streams else make
        share = Share(loop, sockets, cast("Factory", factory), backlog, security, server._share_ended)
        share._exclusive = accept == "shared"
        shares.append(share)
    shares[0]._unlinks = path is not None and cleanup_socket
    await server._start(shares, balances=accept == "balance")
    return server


def _check_arguments(
    loops: list[Serve], accept: str, host: object, port: object, sock: object, path: object
) -> None:
    if not loops:
        raise ValueError("serve() needs at least one loop")
    for loop in loops:
        if not isinstance(loop, TokioLoop):
            raise TypeError(f"serve() takes TokioLoops, not {loop!r}")
    if len({id(loop) for loop in loops}) < len(loops):
        raise ValueError("each loop can serve once")
    if accept not in ("reuseport", "shared", "balance"):
        raise ValueError(f"accept must be 'reuseport', 'shared' or 'balance', not {accept!r}")
    ways = [host is not None or port is not None, sock is not None, path is not None]
    if sum(ways) != 1:
        raise ValueError("one of host/port, sock and path must be specified, and only one")
    if accept == "reuseport" and not ways[0]:
        raise ValueError(
            "accept='reuseport' needs host/port: one socket or path cannot be bound several times"
        )


def _bind_one_port(
    loop: Serve, infos: list[AddrInfo], reuse_address: bool, reuse_port: bool, keep_alive: bool | None
) -> list[socket.socket]:
    """Bind a socket per address; where the kernel is to choose the port, it is the same for all."""
    options = (reuse_address, reuse_port, keep_alive)
    if len(infos) == 1 or infos[0][4][1] != 0:
        return loop._bind_all(infos, *options)
    for attempt in range(1, PORT_ATTEMPTS + 1):
        bound = loop._bind_all(infos, *options)
        ports = {sock.getsockname()[1] for sock in bound}
        if len(ports) == 1:
            return bound
        port = bound[0].getsockname()[1]
        for sock in bound:
            sock.close()
        same = [(*info[:4], (info[4][0], port, *info[4][2:])) for info in infos]
        try:
            return loop._bind_all(cast("Any", same), *options)
        except OSError:
            # A socket of another family has it.
            if attempt == PORT_ATTEMPTS:
                raise
    raise AssertionError("the last attempt raises")


def _sockets_of_each(
    loops: list[Serve],
    bound: list[socket.socket],
    accept: str,
    keep_alive: bool | None,
    reuse_address: bool,
) -> list[list[socket.socket]]:
    """The listening sockets of each loop, all non-blocking."""
    own: list[list[socket.socket]] = []
    try:
        if accept == "shared":
            own += [[sock.dup() for sock in bound] for _ in loops]
        elif accept == "balance":
            own += [[sock.dup() for sock in bound], *([] for _ in loops[1:])]
        else:
            infos = [(sock.family, sock.type, sock.proto, "", sock.getsockname()) for sock in bound]
            own.append(bound)
            for loop in loops[1:]:
                own.append(loop._bind_all(cast("Any", infos), reuse_address, True, keep_alive))
    except BaseException:
        for sock in [sock for sockets in own for sock in sockets]:
            sock.close()
        raise
    for sock in [sock for sockets in own for sock in sockets]:
        sock.setblocking(False)
    return own
