"""The addresses: what a model does, `/health`, `/metrics`, and the schema of all of it at `/openapi.json`."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.formparsers import MultiPartParser

from biomedclip_jax.errors import UserError
from biomedclip_jax.serve._answers import (
    Classified,
    ClassifyForm,
    Embedded,
    EmbedForm,
    Found,
    Health,
    HeatmapForm,
    Maps,
    Problem,
    SearchForm,
)
from biomedclip_jax.serve._guard import COOKIE, HEALTH, LOGIN, PAGE, Guard
from biomedclip_jax.serve._metrics import CONTENT_TYPE, Metrics
from biomedclip_jax.serve._seats import Busy, Seats, TooSlow
from biomedclip_jax.serve._uploads import Upload
from biomedclip_jax.serve._work import NoIndex, Work
from biomedclip_jax.serve.settings import Settings

_WHEN = {
    400: "A body that is no form",
    401: "No token, or a wrong one",
    403: "A page of somebody else asks",
    408: "The body did not come in time",
    413: "Too large",
    415: "Not a form",
    422: "What cannot be answered, and why",
    429: "Too many requests at once; Retry-After says when to come back",
    503: "No answer in time",
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description} for status, description in _WHEN.items()
}
_MULTIPART = Form(media_type="multipart/form-data")
_LISTS = ("images", "labels", "texts", "filters")  # fields that may be there several times
_FIELDS = {"missing": "missing; expected it in the form", "extra_forbidden": "no such field"}
_LOGIN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>biomedclip</title>
<style>body{font-family:system-ui,sans-serif;max-width:24rem;margin:15vh auto}
input{width:100%;padding:.5rem;margin:.5rem 0}</style>
<form method="post"><label>Token of this server<input type="password" name="token" autofocus required></label>
<button>Enter</button><p>SAID</p></form>"""


class Server:
    """An ASGI application, `guard`, and what it is made of.

    folder: for the files of the page, which is there where a folder is given.
    """

    def __init__(self, work: Work, settings: Settings, metrics: Metrics, folder: Path | None = None):
        self.settings, self.metrics, self.work = settings, metrics, work
        limits = settings.limits
        self.seats = Seats(limits.requests, limits.answer_seconds)
        self.map_seats = Seats(limits.maps, limits.answer_seconds, threads=1)  # slow ones, which nobody else waits for
        self.app = FastAPI(
            title="biomedclip serve",
            description="Classify, embed, search and look at biomedical images. Not for clinical use.",
            version="1",
            docs_url=None,  # these pages would be fetched from elsewhere
            redoc_url=None,
            form_limits={
                "max_files": limits.images + 1,  # one more, so that the message is ours
                "max_fields": limits.texts + 16,
                "max_part_size": 4 * limits.characters,
            },
        )
        self._add_errors()
        self._add_health()
        self._add_models()
        self.guard = Guard(self.app, settings, metrics, self._paths(), folder)
        if folder is not None:
            from biomedclip_jax.serve._page import add_page

            add_page(self.app, work, folder, self.map_seats)
        metrics.watch("requests_working", "Requests that work or wait for it", lambda: self.seats.taken)

    def close(self) -> None:
        """Wait for requests whose patience ended before their threads did."""
        self.seats.close()
        self.map_seats.close()

    def _add_models(self) -> None:
        post: Any = {"responses": _PROBLEMS, "response_model_exclude_none": True}

        @self.app.post("/classify", **post)
        async def classify(request: Request, form: Annotated[ClassifyForm, _MULTIPART]) -> Classified:
            """Zero-shot probabilities of labels for images."""
            images = await self._uploads(request, form.images)
            return await self.seats.answer(self.work.classify, images, form.labels, form.template, form.multi_label, form.top)

        @self.app.post("/embed", **post)
        async def embed(request: Request, form: Annotated[EmbedForm, _MULTIPART]) -> Embedded:
            """Unit embeddings of images and texts."""
            images = await self._uploads(request, form.images)
            return await self.seats.answer(self.work.embed, images, form.texts)

        no_index = {404: {"model": Problem, "description": "This server has no index"}}

        @self.app.post("/search", **(post | {"responses": _PROBLEMS | no_index}))
        async def search(request: Request, form: Annotated[SearchForm, _MULTIPART]) -> Found:
            """The images of the index that are nearest to a text or to an image."""
            images = await self._uploads(request, [] if form.image is None else [form.image])
            image = images[0] if images else None
            return await self.seats.answer(self.work.search, form.text, image, form.filters, form.top)

        picture: Any = {200: {"model": Maps, "content": {"image/png": {}}, "description": "Numbers, or a picture"}}

        @self.app.post("/heatmap", response_model=None, responses=_PROBLEMS | picture)
        async def heatmap(request: Request, form: Annotated[HeatmapForm, _MULTIPART]) -> Any:
            """Which regions of an image answer a phrase, beside other phrases."""
            image = (await self._uploads(request, [form.image]))[0]
            if form.format == "json":
                return await self.map_seats.answer(self.work.maps, image, form.phrase, form.against)
            content = await self.map_seats.answer(self.work.maps_png, image, form.phrase, form.against)
            return Response(content, media_type="image/png")

    def _paths(self) -> dict[str, list[str]]:
        return {path: list(methods) for path, methods in self.app.openapi()["paths"].items()} | {"/openapi.json": ["get"]}

    async def _uploads(self, request: Request, files: Sequence[UploadFile]) -> list[Upload]:
        """The files; refused with what FastAPI passes over, a field in the address and one of several values of a field."""
        if request.query_params:
            raise HTTPException(422, f"?{next(iter(request.query_params))}: expected fields of a form, and nothing after a ?")
        given = Counter(name for name, _ in (await request.form()).multi_items())
        if several := [name for name, count in given.items() if count > 1 and name not in _LISTS]:
            raise HTTPException(422, f"{several[0][:100]}: given {given[several[0]]} times; expected once")
        return [self.work.upload(await file.read(), file.filename) for file in files]

    def _add_health(self) -> None:
        def stopping() -> bool:
            return self.guard.stopping

        for path in HEALTH:

            @self.app.get(path, responses={503: {"model": Health, "description": "Stopping"}}, response_model=Health)
            async def health(request: Request) -> Any:
                """Whether requests are answered. Live while the process is; ready until it is told to stop."""
                if stopping() and request.url.path != "/health/live":
                    return JSONResponse({"status": "stopping"}, 503)
                return Health(status="ok")

        @self.app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
        async def metrics() -> Response:
            """Counters for Prometheus."""
            return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

        @self.app.get("/", include_in_schema=False)
        async def root() -> Response:
            return RedirectResponse(f"{PAGE}/")

        @self.app.get(LOGIN, include_in_schema=False)
        async def login() -> Response:
            return HTMLResponse(_LOGIN_PAGE.replace("SAID", ""))

        @self.app.post(LOGIN, include_in_schema=False)
        async def enter(token: Annotated[str, Form()]) -> Response:
            if not self.settings.admits(token.strip()):
                return HTMLResponse(_LOGIN_PAGE.replace("SAID", "This is not the token."), 401)
            answer = RedirectResponse(f"{PAGE}/", 303)
            answer.set_cookie(COOKIE, self.settings.cookie, httponly=True, samesite="strict")
            return answer

    def _add_errors(self) -> None:
        def problem(status: int, **headers: str) -> Callable[[Request, Any], Awaitable[JSONResponse]]:
            async def answer(_: Request, error: Any) -> JSONResponse:
                return JSONResponse({"detail": str(error)}, status, headers=headers)

            return answer

        async def of_http(_: Request, error: Any) -> JSONResponse:
            return JSONResponse({"detail": str(error.detail)}, error.status_code, headers=error.headers)

        async def of_form(_: Request, error: Any) -> JSONResponse:
            return JSONResponse({"detail": _of_fields(error.errors())}, 422)

        later = {"retry-after": "1"}
        self.app.add_exception_handler(UserError, problem(422))
        self.app.add_exception_handler(NoIndex, problem(404))
        self.app.add_exception_handler(Busy, problem(429, **later))
        self.app.add_exception_handler(TooSlow, problem(503, **later))
        self.app.add_exception_handler(StarletteHTTPException, of_http)
        self.app.add_exception_handler(RequestValidationError, of_form)


def keep_uploads_in_memory(limit: int) -> None:
    """Let no part of a form be written to a file: Starlette would do so from 1 MB on. limit: bytes of the largest body."""
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs what the client is told
    MultiPartParser.spool_max_size = max(limit + 1, MultiPartParser.spool_max_size)


def _of_fields(errors: Sequence[Any]) -> str:
    """One line of what pydantic says of a form."""
    parts = []
    for error in errors[:5]:
        name = ".".join(str(each) for each in error["loc"][1:]) or "body"
        said = _FIELDS.get(error["type"], error["msg"])
        parts.append(f"{name[:100]}: {said}")
    return "; ".join(parts)
