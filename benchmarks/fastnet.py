"""uvloop with aiofastnet's transports in place of its own: the peer `aiofastnet`, measured in the TLS rows only."""

from __future__ import annotations

from importlib.metadata import version

import aiofastnet  # type: ignore[import-not-found, unused-ignore]
import uvloop

from .model import Loop

__version__ = f"{version('aiofastnet')} on uvloop {version('uvloop')}"


def new_event_loop() -> Loop:
    loop: Loop = aiofastnet.patch_loop(uvloop.new_event_loop())
    return loop
