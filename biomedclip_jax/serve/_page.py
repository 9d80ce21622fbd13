"""The page for people: an image, its labels, the like of it in an index, its heat map, its embedding.

Gradio draws it. Nothing on it comes from elsewhere, and nothing of an image stays on the disk: an upload is read into
memory and its file removed at once, and pictures are shown as part of the page.
"""

import asyncio
import base64
import html
import io
import json
import os
import secrets
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from biomedclip_jax.data.images.preprocess import to_rgb
from biomedclip_jax.errors import UserError
from biomedclip_jax.serve._guard import PAGE
from biomedclip_jax.serve._seats import Seats
from biomedclip_jax.serve._uploads import Upload
from biomedclip_jax.serve._work import NoIndex, Work

_SHOWN = 384  # pixels of the long side of a picture
_KEPT_SECONDS = 3600
_AT_ONCE, _WAITING = 2, 32
_SESSIONS = 50  # of each Gradio keeps what was last shown
_HEAD = (
    "# biomedclip\nFor research, **not for clinical use**. An image that you open is kept in this server's memory for an hour "
    "at most; its file is removed as soon as it is read."
)
_LABELS = "chest X-ray\nbrain MRI\nabdominal CT"
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}


class Kept:
    """Images that people have opened, in memory: for an hour, and until newer ones need the place.

    most: bytes of all of them.
    """

    def __init__(self, most: int):
        self._most = most
        self._lock = threading.Lock()
        self._images: OrderedDict[str, tuple[float, Upload]] = OrderedDict()

    def put(self, image: Upload) -> str:
        """The key of an image, which nobody can guess."""
        key = secrets.token_hex(16)
        with self._lock:
            self._images[key] = time.monotonic(), image
            self._forget_old()
            while len(self._images) > 1 and sum(len(each.content) for _, each in self._images.values()) > self._most:
                self._images.popitem(last=False)
        return key

    def get(self, key: str | None) -> Upload:
        """The image behind a key. UserError where it is gone."""
        with self._lock:
            self._forget_old()
            if key is None or key not in self._images:
                raise UserError("no image; open one first (it is kept for an hour at most)")
            return self._images[key][1]

    def drop(self, key: str | None) -> None:
        """Forget an image, if it is there."""
        with self._lock:
            self._images.pop(key or "", None)

    def _forget_old(self) -> None:
        while self._images and next(iter(self._images.values()))[0] < time.monotonic() - _KEPT_SECONDS:
            self._images.popitem(last=False)


def import_gradio(folder: Path) -> Any:
    """Gradio, told to call nobody and to put its files into `folder`; both are read when it is first imported."""
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_SHARE": "False",
        "GRADIO_NODE_PATH": "",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gradio
    return gradio


def add_page(app: Any, work: Work, folder: Path, maps: Seats) -> None:
    """Put the page into a FastAPI application, at `PAGE`.

    folder: for the files of uploads, while they come in. maps: its thread draws, as matplotlib keeps fonts for each.
    Not to be called where an event loop runs: it runs one of its own.
    """

    async def add() -> None:
        _add_page(app, work, folder, maps)

    asyncio.run(add())  # outside of a loop Gradio makes one for each of its locks and closes none of them


def _add_page(app: Any, work: Work, folder: Path, maps: Seats) -> None:
    gradio = import_gradio(folder)
    blocks = _blocks(gradio, work, Kept(work.limits.bodies_bytes), maps)
    blocks.state_session_capacity = _SESSIONS
    blocks.queue(max_size=_WAITING, default_concurrency_limit=_AT_ONCE, api_open=False)
    blocks._queue.compute_analytics_summary = lambda records: {"functions": {}}  # nobody may ask for it
    gradio.mount_gradio_app(
        app,
        blocks,
        PAGE,
        footer_links=[],
        run_history=False,
        max_file_size=work.limits.body_bytes,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=gradio.themes.Default(**_FONTS),
    )


def _blocks(gradio: Any, work: Work, kept: Kept, maps: Seats) -> Any:
    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose one-line errors are shown."""

        def run(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except (UserError, NoIndex) as error:
                raise gradio.Error(html.escape(str(error)), duration=20, print_exception=False) from None

        return run

    def open_image(path: str | None, before: str | None) -> tuple[str | None, str]:
        kept.drop(before)
        if path is None:
            return None, ""
        file = Path(path)
        try:
            image = work.upload(file.read_bytes(), file.name)
        finally:
            file.unlink(missing_ok=True)
        return kept.put(image), _picture(image.load(), image.name)

    def classify(key: str | None, labels: str, multi_label: bool) -> dict[str, float]:
        found = work.classify([kept.get(key)], _lines(labels), multi_label=multi_label)
        for line in found.warnings:
            gradio.Warning(html.escape(line))
        return found.images[0].probabilities or {}

    def search(key: str | None, text: str, filters: str, top: float) -> str:
        image = None if text.strip() else kept.get(key)
        index, searched, hits = work.hits(text if image is None else None, image, _lines(filters), int(top))
        return _found(index, searched, hits)

    def look(key: str | None, phrase: str, against: str) -> str:
        image = kept.get(key)
        picture = maps.turn(lambda: work.heatmap(image, phrase, against.strip() or None).picture())
        return _picture(picture, phrase, whole=True)

    def embed(key: str | None) -> str:
        return json.dumps(work.embed([kept.get(key)], []).images[0].embedding)

    own: dict[str, Any] = {"api_visibility": "private"}
    with gradio.Blocks(title="biomedclip", analytics_enabled=False, delete_cache=(60, 60)) as blocks:
        gradio.Markdown(_HEAD)
        key = gradio.State(None, delete_callback=kept.drop)
        with gradio.Row():
            file = gradio.File(label="Image: JPEG, PNG, TIFF, WebP, GIF, BMP or DICOM", elem_id="file")
            shown = gradio.HTML(elem_id="shown")
        file.change(told(open_image), [file, key], [key, shown], **own)
        with gradio.Tab("Classify"):
            labels = gradio.Textbox(_LABELS, label="Labels, one a line", lines=4, elem_id="labels")
            multi = gradio.Checkbox(label="Each label for itself, against its absence")
            button = gradio.Button("Classify", variant="primary")
            button.click(
                told(classify), [key, labels, multi], gradio.Label(label="Probabilities", elem_id="probabilities"), **own
            )
        with gradio.Tab("Search"):
            what = gradio.Textbox(label="Words; empty: what looks like the image", elem_id="words")
            filters = gradio.Textbox(label="Filters, one a line, such as license=CC BY", lines=2)
            top = gradio.Slider(1, 50, 12, step=1, label="Hits")
            button = gradio.Button("Search", variant="primary")
            button.click(told(search), [key, what, filters, top], gradio.HTML(elem_id="hits"), **own)
        with gradio.Tab("Heat map"):
            phrase = gradio.Textbox(label="Phrase", elem_id="phrase")
            against = gradio.Textbox(label="Another finding to compare with; empty: a common one")
            button = gradio.Button("Draw", variant="primary")
            button.click(told(look), [key, phrase, against], gradio.HTML(elem_id="map"), **own)
        with gradio.Tab("Embed"):
            button = gradio.Button("Embed", variant="primary")
            numbers = gradio.Textbox(label="Unit embedding", lines=6, buttons=["copy"], elem_id="embedding")
            button.click(told(embed), key, numbers, **own)

        def left(request: Any) -> None:
            """Of a page that was closed Gradio would keep what was shown, with the images, until others need the place."""
            blocks.state_holder.delete_state(request.session_hash)
            blocks.state_holder.session_data.pop(request.session_hash, None)
            blocks.state_holder.time_last_used.pop(request.session_hash, None)

        left.__annotations__["request"] = gradio.Request  # by which Gradio knows what to give
        blocks.unload(left)
    return blocks


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _picture(image: Image.Image, title: str, whole: bool = False) -> str:
    """An image as part of the page. whole: in its own size, and as PNG."""
    image = to_rgb(image.copy())
    if not whole:
        image.thumbnail((_SHOWN, _SHOWN))
    file = io.BytesIO()
    image.save(file, "PNG" if whole else "JPEG", quality=88)
    kind, content = "png" if whole else "jpeg", base64.b64encode(file.getvalue()).decode()
    return f'<img style="max-width:100%" alt="{html.escape(title)}" src="data:image/{kind};base64,{content}">'


def _found(index: Any, searched: int, hits: Sequence[Any]) -> str:
    """Hits as cards; one whose picture cannot be read any more says so."""
    cards = []
    for hit in hits:
        try:
            picture = _picture(index.image(hit), hit.id)
        except UserError as error:
            picture = html.escape(str(error))
        known = [hit.caption, hit.citation or hit.article, hit.license]
        words = "<br>".join(html.escape(text) for text in known if text)
        cards.append(
            f'<figure style="width:13rem;margin:.5rem"><b>{hit.score:.3f}</b><br>{picture}'
            f'<figcaption style="font-size:.8rem;overflow-wrap:anywhere">{html.escape(hit.id)}<br>{words}</figcaption></figure>'
        )
    cards_shown = "".join(cards) or "none"
    return f'<p>{searched:,} images searched</p><div style="display:flex;flex-wrap:wrap">{cards_shown}</div>'
