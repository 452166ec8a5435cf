"""uvloop with aiofastnet's transports in place of its own: the peer `aiofastnet`, measured in the TLS rows only."""

from __future__ import annotations

from typing import cast

import aiofastnet  # type: ignore[import-not-found, unused-ignore]
import uvloop

from .model import Loop

__version__ = f"{aiofastnet.__version__} on uvloop {uvloop.__version__}"


def new_event_loop() -> Loop:
    return cast(Loop, aiofastnet.patch_loop(uvloop.new_event_loop()))
