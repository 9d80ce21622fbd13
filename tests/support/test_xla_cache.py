"""A second start of a run of several processes finds the compiled programs of the first, also on new disks."""

import os
import subprocess
import sys
from pathlib import Path

# stands for a process of many, without the others
START = """
import sys
from pathlib import Path
import jax
from biomedclip_jax.support.xla_cache import enable_compilation_cache

found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name.rpartition("/")[2]))
processes = int(sys.argv[2])
jax.process_count = lambda *_: processes
enable_compilation_cache(Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x * 3 + 1)(2.0).block_until_ready()
print(found.count("cache_hits"), found.count("cache_misses"))
"""


def start(shared: Path, home: Path, processes: int) -> list[int]:
    """[programs found, programs compiled] of a start with this home folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(home), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", START, str(shared), str(processes)]
    return list(map(int, subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()))


def test_several_processes_keep_programs_where_a_new_pod_finds_them(tmp_path: Path) -> None:
    assert start(tmp_path / "shared", tmp_path / "home", 2)[0] == 0
    found, compiled = start(tmp_path / "shared", tmp_path / "new home", 2)
    assert found > 0 and compiled == 0


def test_one_process_keeps_programs_at_home(tmp_path: Path) -> None:
    start(tmp_path / "shared", tmp_path / "home", 1)
    assert not (tmp_path / "shared").exists()
    assert start(tmp_path / "shared", tmp_path / "home", 1)[0] > 0
