"""The logger of the Python layer: asyncio's own, so that programs configure one and tests watch one."""

import logging

logger = logging.getLogger("asyncio")
