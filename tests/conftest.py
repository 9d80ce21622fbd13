"""Every test runs on eight emulated CPU devices, offline, with a compilation cache of its own kept between runs."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

# before anything imports JAX
# XLA's newer way to emit fused loops takes twice the time to compile, of which the tests have many and small ones
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# LLVM's passes over tiny programs take longer than they save, twice the compile time; XLA's own passes are all run
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# JAX writes a cached program in place, where another process could read half of it: each of pytest-xdist's workers has its own
CACHE = REPOSITORY / ".pytest_cache" / "xla" / os.environ.get("PYTEST_XDIST_WORKER", "")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ["HF_HUB_OFFLINE"] = "1"

import helpers.shapes  # noqa: E402, F401
import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# every call of their functions in a test checks the shapes and dtypes that the signatures tell
CHECKED = (
    "biomedclip_jax.models",
    "biomedclip_jax.losses",
    "biomedclip_jax.sharding",
    "biomedclip_jax.pretrained",
    "biomedclip_jax.evaluation.retrieval._ranks",
    "biomedclip_jax.evaluation._metrics",
)
install_import_hook(CHECKED, "helpers.shapes.checked")
MOST_MAPS = 12_000  # after a test file; one of the largest files needs as many itself


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process says no more than ten odd things of single files: each test counts its own."""
    monkeypatch.setattr("biomedclip_jax.support.terminal._said", set())


@pytest.fixture(autouse=True, scope="module")
def programs_are_forgotten() -> Iterator[None]:
    """Each compiled program has three memory maps of its own, and Linux ends a process that needs more than 65,530 of them."""
    yield
    if _memory_maps() > MOST_MAPS:
        if steps := sys.modules.get("helpers.tiny_step"):
            steps.program.cache_clear()
        jax.clear_caches()
        gc.collect()


def _memory_maps() -> int:
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what is kept between runs, such as the indexes of tars, that no other test uses."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WordPiece vocabulary of BiomedBERT's size and special tokens, with the configs that go with it."""
    from helpers.written_vocabulary import write_biomedical_vocabulary

    return write_biomedical_vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket, "s3://bucket", that this process and those it starts reach."""
    import s3fs

    names = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {"AWS_ENDPOINT_URL": s3_server, **names}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield "s3://bucket"
    s3fs.S3FileSystem().rm("s3://bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for all tests of real data, where they were skipped."""
    from helpers.real_data_folder import SKIPPED

    if any(SKIPPED in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_line(SKIPPED)
