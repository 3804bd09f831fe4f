"""Too little memory is an error of exit code 3 that says what to do, never an abort.

Native libraries end the process when they get no memory, so a command does not start in an address space that
is too small for it (`ulimit -v`; measured on GAPED). What they raise as exceptions is recognised.
"""

from __future__ import annotations

import errno
import re
import resource

from affectdata.errors import InputError
from affectdata.workers import default_workers

_GIB = 1 << 30
_NEEDED = {"train-check": 8.0, "study": 8.0, "predict": 8.0}  # GiB; torch maps its libraries
_NEEDED |= dict.fromkeys(("sources", "sample", "schema"), 0.5)
_USUAL = 2.0
_PER_CORE = 0.125  # beyond four cores: stack and heap of a thread
_FOR_CHARTS = 512.0  # the engine that draws charts reserves address space that it does not use
_PATTERN = re.compile(
    r"failed to map segment|can't start new thread|insufficient memory|out of memory|not enough memory"
    r"|can't allocate memory|cannot allocate memory|bad_alloc|unable to allocate",
    re.IGNORECASE,
)
_FIX = "use fewer --workers, close other programs, or raise the limit (ulimit -v, or that of the container)"


def check_memory(command: str) -> None:
    """Refuse to run a command in an address space that is too small for its libraries.

    Raises:
        InputError: with the limit and what is needed.
    """
    limit, needed = _limit(), _FOR_CHARTS if command == "report" else _NEEDED.get(command, _USUAL)
    needed += _PER_CORE * max(0, default_workers() - 4)
    if limit < needed:
        raise InputError(
            f"the address space is limited to {limit:.2f} GiB; `affectdata {command}` needs {needed:g} GiB",
            fix="raise the limit (ulimit -v unlimited), or that of the job or container",
        )


def has_memory_for_charts() -> bool:
    """Return whether the address space is large enough to draw charts."""
    return _limit() >= _FOR_CHARTS


def _limit() -> float:
    """Return the limit of the address space in GiB."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return float("inf") if soft == resource.RLIM_INFINITY else soft / _GIB


def explain_memory(error: BaseException) -> InputError | None:
    """Return an error that says what to do if a library got no memory; else None."""
    is_memory = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if is_memory or _PATTERN.search(str(error)):
        return InputError(f"not enough memory: {str(error) or 'an allocation failed'}", fix=_FIX)
    return None
