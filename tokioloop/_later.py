"""What asyncio offers and this version does not: a NotImplementedError that says what is missing.

Arguments that asyncio refuses are refused here as well, before that.
"""

from typing import Any

from ._sockets import not_built
from ._tokioloop import EventLoop


class Later(EventLoop):
    """Subprocesses."""

    async def subprocess_shell(self, protocol_factory: Any, cmd: bytes | str, **options: Any) -> Any:
        """Not supported yet."""
        if not isinstance(cmd, (bytes, str)):
            raise ValueError("cmd must be a string")
        _check_process({"shell": True} | options, shell=True)
        not_built("subprocesses (subprocess_shell)")

    async def subprocess_exec(self, protocol_factory: Any, program: Any, *args: Any, **options: Any) -> Any:
        """Not supported yet."""
        _check_process(options, shell=False)
        not_built("subprocesses (subprocess_exec)")


def _check_process(options: dict[str, Any], *, shell: bool) -> None:
    """ValueError for the options of subprocess.Popen that make no sense for a loop."""
    if options.get("universal_newlines"):
        raise ValueError("universal_newlines must be False")
    if bool(options.get("shell")) != shell:
        raise ValueError(f"shell must be {shell}")
    if options.get("bufsize"):
        raise ValueError("bufsize must be 0")
    if options.get("text"):
        raise ValueError("text must be False")
    for name in ("encoding", "errors"):
        if options.get(name) is not None:
            raise ValueError(f"{name} must be None")
