"""The page in a real browser, which is told to talk to nobody else."""

import gc
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom.data
import pytest
from helpers.served import client, image_file, listening, served, write_model
from PIL import Image

from biomedclip_jax.errors import UserError
from biomedclip_jax.search import open_index
from biomedclip_jax.search.update import Wanted, update_index
from biomedclip_jax.serve._app import Server
from biomedclip_jax.serve._metrics import Metrics
from biomedclip_jax.serve._model import ServedModel
from biomedclip_jax.serve._page import Kept
from biomedclip_jax.serve._private_folder import private_folder
from biomedclip_jax.serve._uploads import Upload
from biomedclip_jax.serve._work import Work
from biomedclip_jax.serve.settings import Limits, Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LIMITS = Limits(pixels=5_000)


@contextmanager
def others_loops() -> Iterator[None]:
    """Event loops that Playwright makes inside the block and does not close go without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def work(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("images")
    for n in range(3):
        (folder / f"{n}.png").write_bytes(image_file(n))
    clip: ServedModel = served(model, Metrics())
    index = tmp_path_factory.mktemp("index") / "index"
    update_index(index, Wanted(str(model), (str(folder),)), lambda: clip)
    return Work(clip, LIMITS, open_index(index))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def made(work: Work, folder: Path) -> Server:
    server = Server(work, Settings(port=0, limits=LIMITS), Metrics(), folder)
    gc.collect()  # event loops that were made for it and left open would be heard of here
    return server


@pytest.fixture(scope="module")
def address(made: Server) -> Iterator[str]:
    with listening(made) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with others_loops(), playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.set_default_timeout(60_000)
        opened.asked = []
        opened.on("request", lambda request: opened.asked.append(request.url))
        opened.goto(f"{address}/")
        opened.get_by_role("button", name="Classify").wait_for()
        yield opened
        browser.close()


def pictures_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_picture_goes_through_all_four_tabs(page: Any, address: str, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.png"
    file.write_bytes(image_file(1))
    page.set_input_files("#file input[type=file]", str(file))
    page.wait_for_selector("#shown img")
    assert pictures_in(folder) == [], "nothing of it is left on the disk"
    page.fill("#labels textarea", "chest ray\nbrain image")
    page.get_by_role("button", name="Classify").click()
    page.wait_for_function("document.querySelector('#probabilities').innerText.includes('%')")
    assert {"chest ray", "brain image"} <= set(page.inner_text("#probabilities").split("\n"))
    page.get_by_role("tab", name="Search").click()
    page.get_by_role("button", name="Search").click()
    page.wait_for_selector("#hits figure img")
    found = page.inner_text("#hits")
    assert "3 images searched" in found and found.index("1.000") < found.index("1.png")
    page.get_by_role("tab", name="Heat map").click()
    page.fill("#phrase textarea", "chest ray")
    page.get_by_role("button", name="Draw").click()
    page.wait_for_selector("#map img")
    assert page.evaluate("document.querySelector('#map img').naturalWidth") > 500
    page.get_by_role("tab", name="Embed").click()
    page.get_by_role("button", name="Embed").click()
    page.wait_for_function("document.querySelector('#embedding textarea').value.startsWith('[')")
    page.screenshot(path=tmp_path / "screen.png")
    assert len(np.unique(np.asarray(Image.open(tmp_path / "screen.png")))) > 50, "something is drawn"
    assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []
    assert pictures_in(folder) == []


def test_of_a_page_that_was_closed_nothing_is_kept(page: Any, made: Server, tmp_path: Path) -> None:
    holder = next(route.app for route in made.app.routes if getattr(route, "path", "") == "/page").state_holder
    (tmp_path / "mine.png").write_bytes(image_file(1))
    page.set_input_files("#file input[type=file]", str(tmp_path / "mine.png"))
    page.wait_for_selector("#shown img")
    sessions = set(holder.session_data)
    assert sessions
    page.close()
    deadline = time.monotonic() + 60
    while holder.session_data and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not holder.session_data


def test_dicom_is_shown_and_what_is_no_image_is_named(page: Any, tmp_path: Path, folder: Path) -> None:
    page.set_input_files("#file input[type=file]", pydicom.data.get_testdata_file("MR_small.dcm"))
    page.wait_for_selector("#shown img[alt='MR_small.dcm']")
    page.get_by_label("Remove this file").or_(page.get_by_label("Clear")).first.click()
    file = tmp_path / "notes.txt"
    file.write_text("no image")
    page.set_input_files("#file input[type=file]", str(file))
    page.get_by_text("notes.txt: not an image").wait_for()
    page.get_by_role("button", name="Classify").click()
    page.get_by_text("no image; open one first").wait_for()
    assert pictures_in(folder) == []


def test_of_gradio_only_what_the_page_needs_is_answered(made: Server) -> None:
    asked = client(made)
    assert asked.get("/page/").status_code == 200
    for path in ("process_recording", "component_server", "queue/leave", "vibe-edit/"):
        assert asked.post(f"/page/gradio_api/{path}", data={}).status_code == 404, path
    assert asked.get("/page/gradio_api/proxy=https://elsewhere.example/").status_code == 404
    answer = asked.get("/page/config", headers={"origin": "http://localhost:1234"})
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert answer.json()["analytics_enabled"] is False
    assert "googleapis" not in asked.get("/page/theme.css").text + asked.get("/page/").text


def joined(address: str, path: str) -> tuple[int, str]:
    """What becomes of a request to open a file of that path, as the page sends it: the status, and what is shown."""
    file = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    asked = {"data": [file, None], "fn_index": 0, "session_hash": "abcdef"}
    joined = httpx.post(f"{address}/page/gradio_api/queue/join", json=asked)
    if joined.status_code != 200:
        return joined.status_code, joined.text
    with httpx.stream("GET", f"{address}/page/gradio_api/queue/data?session_hash=abcdef", timeout=60) as answer:
        return 200, next(line for line in answer.iter_lines() if "process_completed" in line)


def test_the_page_opens_uploads_and_no_other_file_of_this_machine(address: str, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(image_file(1))
    upload = httpx.post(f"{address}/page/gradio_api/upload", files={"files": ("mine.png", image_file(2))})
    (mine,) = upload.json()
    assert Path(mine).is_relative_to(folder)
    others = (str(secret), f"{mine}/../../../{secret}", f"{folder}/../{secret}", str(folder), f"{address}/health", "")
    for path in (*others, f"http://127.0.0.1:1/{secret}"):
        assert joined(address, path)[0] == 403, path
    (folder / "link").symlink_to(tmp_path)
    assert joined(address, f"{folder}/link/secret.png")[0] == 403
    (folder / "link").unlink()
    assert secret.is_file()
    status, shown = joined(address, mine)
    assert status == 200 and "data:image/jpeg;base64" in shown and "mine.png" in shown
    for body in (b"no JSON", b"[" * 200_000, b'{"path": "%s", "path": 1}' % mine.encode()):
        assert httpx.post(f"{address}/page/gradio_api/queue/join", content=body).status_code in (400, 403)


def test_images_are_kept_until_newer_ones_need_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(25)
    keys = [kept.put(Upload(bytes(10), f"{n}", 1)) for n in range(3)]
    assert [kept.get(key).name for key in keys[1:]] == ["1", "2"]
    for key in (keys[0], None, "x"):
        with pytest.raises(UserError, match="open one first"):
            kept.get(key)
    kept.drop(keys[1])
    kept.drop(None)
    with pytest.raises(UserError):
        kept.get(keys[1])
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3601)
    with pytest.raises(UserError):
        kept.get(keys[2])


def test_the_folder_of_uploads_is_private_and_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "biomedclip-serve-left"
    left.mkdir()
    (left / "patient.png").write_bytes(b"x")
    other = tmp_path / "other"
    other.mkdir()
    with private_folder() as mine:
        assert not left.exists() and other.exists()
        assert mine.stat().st_mode & 0o777 == 0o700 and mine.stat().st_uid == os.getuid()
        with private_folder() as second:
            assert mine.exists() and second != mine, "one that is in use stays"
        assert not second.exists()
    assert not mine.exists()
