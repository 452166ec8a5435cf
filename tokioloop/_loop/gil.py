"""The GIL check: a program with several loops gets one warning when its threads can only take turns."""

import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader
from threading import Lock
from warnings import warn

from .._tokioloop import _needs_no_gil

_lock = Lock()
_warned = False


def warn_if_gil_is_on(stacklevel: int = 2) -> bool:
    """Return whether the GIL is on, and warn once per process: a RuntimeWarning that names the cause.

    May be called in any thread. *stacklevel* is that of ``warnings.warn``.
    """
    global _warned
    if not sys._is_gil_enabled():
        return False
    with _lock:
        first, _warned = not _warned, True
    if first:
        warn(_text(), RuntimeWarning, stacklevel=stacklevel + 1)
    return True


def _text() -> str:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this build of Python has the GIL: threads run Python code in turns; several loops gain by a free-threaded build only"
    return f"the GIL is on, so threads run Python code in turns: {_reason()}"


def _reason() -> str:
    # Set by -X gil=1 or PYTHON_GIL=1, of which the former comes first.
    if sys._xoptions.get("gil") == "1":
        return "-X gil=1 asks for it"
    if sys.flags.gil == 1:
        return "PYTHON_GIL=1 asks for it"
    sure: list[str] = []
    perhaps: list[str] = []
    for name, declared in _extensions():
        if declared is False:
            sure.append(name)
        elif declared is None:
            perhaps.append(name)
    if sure:
        return f"{_listed(sure)} does not declare to work without it"
    if perhaps:
        return f"perhaps {_listed(perhaps)} does not declare to work without it"
    return "something turned it on that is not among the loaded modules any more"


def _extensions() -> Iterator[tuple[str, bool | None]]:
    """Loaded extension modules in the order of their import, and what each declares."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if isinstance(getattr(spec, "loader", None), ExtensionFileLoader):
            yield name, _needs_no_gil(module)


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return f"the extension module {names[0]!r}"
    return "one of the extension modules " + ", ".join(map(repr, names))
