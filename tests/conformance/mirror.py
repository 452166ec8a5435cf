"""Mocks that a test puts into asyncio's modules also replace the subject's object for the same purpose.

`mock.patch("asyncio.base_events.logger")` means the logger of the loop. The subject logs to the same logger by a name of
its own; without this, such a test would watch a loop that is not there.
"""

import importlib
import sys
import types
from typing import Any

PLACES: dict[str, dict[tuple[str, str], tuple[tuple[str, str], ...]]] = {
    "tokioloop.TokioLoop": {
        ("asyncio.base_events", "logger"): (("tokioloop._loop.errors", "logger"),),
        ("asyncio.base_events", "socket"): (
            ("tokioloop._net.serve", "socket"),
            ("tokioloop._net.connect", "socket"),
            ("tokioloop._net.names", "socket"),
            ("tokioloop._net.datagram", "socket"),
        ),
        ("asyncio.unix_events", "socket"): (
            ("tokioloop._net.serve", "socket"),
            ("tokioloop._net.connect", "socket"),
        ),
        ("asyncio.unix_events", "signal"): (("tokioloop._loop.signals", "signal"),),
        ("asyncio.unix_events", "sys"): (("tokioloop._loop.signals", "sys"),),
    },
}
"""By subject: the module and name that tests patch, and where the subject holds the same object."""


HOOKS: dict[str, tuple[tuple[str, str, str, Any], ...]] = {
    "tokioloop.TokioLoop": (
        # asyncio keeps the data for later; data for a peer that does not read is kept anyway.
        (
            "tokioloop._tokioloop",
            "SslTransport",
            "_test__append_write_backlog",
            lambda self, data: self.write(data),
        ),
        (
            "tokioloop._tokioloop",
            "DatagramTransport",
            "_sock",
            property(lambda self: self.get_extra_info("socket")),
        ),
    ),
}
"""By subject: what tests use of asyncio's transports and is no more than another name for something public: module, class and
name of the subject's, and what does it."""


class MirrorError(Exception):
    """A name in the table does not exist, or has another object than asyncio's."""


def install(subject: str) -> None:
    """Makes the modules of asyncio named in the table forward assignments. Stays for the process's life."""
    places = PLACES.get(subject, {})
    for (module, name), targets in places.items():
        original = getattr(importlib.import_module(module), name)
        for target, attribute in targets:
            if getattr(importlib.import_module(target), attribute, None) is not original:
                raise MirrorError(f"{target}.{attribute} is not what {module}.{name} is: correct the table")

    class Mirrored(types.ModuleType):
        """A module that forwards assignments."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            for target, attribute in places.get((self.__name__, name), ()):
                setattr(sys.modules[target], attribute, value)

    for module in {module for module, _ in places}:
        sys.modules[module].__class__ = Mirrored
    for module, class_name, hook, value in HOOKS.get(subject, ()):
        setattr(getattr(importlib.import_module(module), class_name), hook, value)
