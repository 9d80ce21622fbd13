"""What stands beside every measured number: where and when it was measured, and of which version a library really is."""

import datetime
import platform
from pathlib import Path
from types import ModuleType

from biomedclip_jax.support.parallel import core_count

_CPUINFO = Path("/proc/cpuinfo")
_NUMBERS = ("cpu family", "model")  # a rented machine's name is often no more than "AMD EPYC"


def measured_on(cpuinfo: Path = _CPUINFO) -> str:
    """The cores of this machine that this process may use, their processor, and today's date, for the head of a report.

    cpuinfo: Linux's list of processors; where there is none, the processor is named as Python knows it.
    """
    return f"on {core_count()} cores of {_processor(cpuinfo)}, {datetime.date.today()}"


def _processor(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = said.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{what.removeprefix('cpu ')} {said[what]}" for what in _NUMBERS if what in said]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def version_of(module: ModuleType) -> str:
    """The version of what was imported: one found on PYTHONPATH may not be the one that is installed."""
    return str(module.__version__)
