"""The loop class: the native core, the Python rooms around it, and asyncio's interface on top."""

from __future__ import annotations

import asyncio
from importlib import import_module

from . import _tokioloop
from ._loop import tasks as _tasks  # noqa: F401 - asyncio's functions know our tasks from here on
from ._loop.lifecycle import Lifecycle

# The rooms that are imported when a method of theirs is first asked for, with all that their classes define.
_ROOMS = {
    "_net.names.Names": "getaddrinfo getnameinfo _lookup _ensure_resolved",
    "_net.tls.Tls": "start_tls _make_ssl_transport",
    "_net.connect.Connect": (
        "create_connection create_unix_connection connect_accepted_socket sock_connect "
        "_resolve_stream _connect_any _connect_one _wrap_connected"
    ),
    "_net.datagram.Datagram": "create_datagram_endpoint _datagram_pairs _open_any",
    "_net.pipes.Pipes": "connect_read_pipe connect_write_pipe _connect_pipe",
    "_net.sendfile.Sendfile": (
        "sendfile sock_sendfile _sock_sendfile_native _sendfile_native _sock_sendfile_fallback _sendfile_fallback "
        "_send_native _copy"
    ),
    "_net.serve.Serve": (
        "create_server create_unix_server _serve _resolve_hosts _bind_all _start_serving _stop_serving "
        "_note_unix_socket _unix_server_sockets"
    ),
    "_process.spawn.Processes": (
        "subprocess_exec subprocess_shell _start_process _watch_process _wait_for_child"
    ),
}


class _Later:
    """A placeholder for an attribute of a room's class, until that class is imported and its own attribute replaces this."""

    def __init__(self, room: str) -> None:
        self.room = room

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __get__(self, instance: object, kind: type) -> object:
        module, _, name = self.room.rpartition(".")
        members: dict[str, Any] = dict(vars(getattr(import_module(f".{module}", __package__), name)))
        # Several threads may do this at the same time: all of them set the same attributes.
        for name, member in members.items():
            if isinstance(vars(self.owner).get(name), _Later):
                setattr(self.owner, name, member)
        member = members[self.name]
        return member.__get__(instance, kind) if hasattr(member, "__get__") else member


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._net.datagram import Datagram
    from ._net.sendfile import Sendfile
    from ._net.serve import Serve
    from ._process.spawn import Processes

    class _Rooms(Datagram, Serve, Sendfile, Processes): ...

else:
    _Rooms = type(
        "_Rooms",
        (),
        {"__slots__": (), **{name: _Later(room) for room, names in _ROOMS.items() for name in names.split()}},
    )


class TokioLoop(_Rooms, Lifecycle, asyncio.AbstractEventLoop):  # type: ignore[misc]
    """An asyncio event loop: make one in each thread that needs one, run it there, close it at the end.

    It may be made in one thread and run in another. While it runs, only its own thread may call it, except
    ``call_soon_threadsafe``, ``stop``, ``is_running``, ``is_closed``, ``time``, ``get_debug`` and ``repr``:
    anything else raises RuntimeError naming both threads.
    """


_tokioloop._own_methods(TokioLoop)


def new_event_loop() -> TokioLoop:
    """Return a new loop, bound to the calling thread if that has no live loop yet. May be called anywhere."""
    return TokioLoop()


def loops() -> dict[int, TokioLoop]:
    """Return this process's live loops by the ident of the thread they run in or are bound to.

    One loop for each ident: where several were made in a thread, the one that runs there or was bound first. A loop made in a
    thread that has ended stays listed under that thread's ident until a new thread gets it. A snapshot, safe to take from
    any thread; loops may start and end while it is looked at.
    """
    return _tokioloop.loops()  # type: ignore[return-value]
