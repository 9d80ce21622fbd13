"""What a client gets: answers as of the model itself, and one line for everything that has no answer."""

import asyncio
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.served import client, image_file, served, server, write_model
from PIL import Image
from starlette.testclient import TestClient

from biomedclip_jax.heatmaps import heatmap
from biomedclip_jax.search import open_index
from biomedclip_jax.search.update import Wanted, update_index
from biomedclip_jax.serve._app import Server
from biomedclip_jax.serve._metrics import Metrics
from biomedclip_jax.serve._model import ServedModel
from biomedclip_jax.serve._seats import Busy, Seats, TooSlow
from biomedclip_jax.serve._work import Work
from biomedclip_jax.serve.settings import Limits, Settings

TOKEN = "0123456789abcdef"
LABELS = ["chest ray", "brain image", "tumor cells"]
LIMITS = Limits(body_bytes=40_000, bodies_bytes=80_000, pixels=5_000, images=3, texts=5, characters=100, body_seconds=0.5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return served(write_model(tmp_path_factory.mktemp("model")), Metrics())


@pytest.fixture(scope="module")
def open_client(clip: ServedModel) -> Iterator[TestClient]:
    with client(server(clip, Settings(limits=LIMITS))) as made:
        yield made


@pytest.fixture(scope="module")
def guarded(clip: ServedModel) -> Iterator[TestClient]:
    with client(server(clip, Settings(host="0.0.0.0", token=TOKEN, limits=LIMITS))) as made:
        yield made


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{n}.png", content)) for n, content in enumerate(contents)]


def test_classify_is_what_the_model_says_the_best_first(open_client: TestClient, clip: ServedModel) -> None:
    images = [image_file(1), image_file(2)]
    answer = open_client.post("/classify", files=files(*images), data={"labels": LABELS})
    assert answer.status_code == 200, answer.text
    expected = clip.classify(images, LABELS)
    found = answer.json()
    assert [each["image"] for each in found["images"]] == ["0.png", "1.png"] and found["warnings"] == []
    for own, row in zip(found["images"], expected, strict=True):
        values = list(own["probabilities"].values())
        assert values == sorted(values, reverse=True)
        np.testing.assert_allclose([own["probabilities"][label] for label in LABELS], row, atol=1e-5)


def test_classify_takes_a_template_several_labels_and_the_best(open_client: TestClient, clip: ServedModel) -> None:
    data = {"labels": LABELS[:1], "template": "the {} of", "multi_label": "true"}
    answer = open_client.post("/classify", files=files(image_file(1)), data=data).json()
    expected = clip.classify([image_file(1)], LABELS[:1], "the {} of", multi_label=True)
    assert answer["images"][0]["probabilities"] == pytest.approx({LABELS[0]: float(expected[0, 0])}, abs=1e-5)
    answer = open_client.post("/classify", files=files(image_file(1)), data={"labels": LABELS, "top": "1"}).json()
    assert len(answer["images"][0]["probabilities"]) == 1


def test_embed_is_what_the_model_says(open_client: TestClient, clip: ServedModel) -> None:
    answer = open_client.post("/embed", files=files(image_file(1)), data={"texts": ["chest ray", "胸部"]}).json()
    np.testing.assert_allclose(answer["images"][0]["embedding"], clip.encode_images([image_file(1)])[0], atol=1e-6)
    assert [each["text"] for each in answer["texts"]] == ["chest ray", "胸部"]
    of_texts = [each["embedding"] for each in answer["texts"]]
    np.testing.assert_allclose(of_texts, clip.encode_texts(["chest ray", "胸部"]), atol=1e-6)
    assert answer["model"] == clip.fingerprint and "1 of 2 is mostly in signs" in answer["warnings"][0]


def test_a_broken_image_costs_its_own_row(open_client: TestClient) -> None:
    answer = open_client.post("/classify", files=files(b"rubbish", image_file(1)), data={"labels": LABELS}).json()
    assert answer["images"][0] == {"image": "0.png", "error": answer["images"][0]["error"]}
    assert "0.png: not an image" in answer["images"][0]["error"] and len(answer["images"][1]["probabilities"]) == 3
    answer = open_client.post("/embed", files=files(image_file(1), b"rubbish")).json()
    assert "embedding" in answer["images"][0] and "not an image" in answer["images"][1]["error"]


IMAGE = image_file(1)
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("path", "asked", "status", "said"),
    [
        ("/classify", {"files": files(b"rubbish"), "data": {"labels": LABELS}}, 422, "0.png: not an image"),
        ("/classify", {"files": files(b"x", b""), "data": {"labels": LABELS}}, 422, "none of the 2 images"),
        ("/classify", {"files": files(IMAGE)}, 422, "labels: missing"),
        ("/classify", {"data": {"labels": LABELS}}, 422, "images: missing"),
        ("/classify", {"files": files(IMAGE), "data": {"labels": LABELS[:1]}}, 422, "at least two"),
        ("/classify", {"files": files(IMAGE), "data": {"labels": LABELS, "tempalte": "{}"}}, 422, "tempalte: no such field"),
        ("/classify", {"files": files(IMAGE), "data": {"labels": LABELS, "template": "a"}}, 422, "expected {}"),
        ("/classify", {"files": files(IMAGE), "data": {"labels": LABELS, "top": ["1", "2"]}}, 422, "top: given 2 times"),
        ("/classify", {"files": files(IMAGE), "data": {"labels": LABELS, "top": "0"}}, 422, "top: "),
        ("/classify", {"files": files(IMAGE), "data": {"labels": LABELS, "template": "{}" * 30}}, 422, "a sentence of"),
        ("/classify", {"files": files(IMAGE), "data": {"labels": list("abcdef")}}, 422, "labels: 6 given; expected 5"),
        ("/classify?top=1", {"files": files(IMAGE), "data": {"labels": LABELS}}, 422, "?top: expected fields of a form"),
        ("/embed", {"files": files(*[IMAGE] * 4)}, 422, "images: 4 given; expected 3"),
        ("/embed", {"files": files(*[b"x"] * 9)}, 400, "Too many files"),
        ("/embed", {"data": {"texts": "x" * 101}}, 422, "has 101 characters; expected 100"),
        ("/embed", {"data": {"texts": "x" * 900}}, 400, "exceeded maximum size"),
        ("/embed", {"data": {"images": "not a file"}}, 422, "images.0: "),
        ("/embed", {"files": files(image_file(1, size=(80, 80)))}, 422, "0.png: 80 x 80 pixels; expected 5,000"),
        ("/embed", {"content": b"", "headers": MULTIPART}, 400, "no end"),
        ("/embed", {"content": b"rubbish --x--", "headers": MULTIPART}, 400, "Invalid multipart"),
        ("/embed", {"content": b"--x\r\nContent-Disposition: form-data; name=", "headers": MULTIPART}, 400, "no end"),
        ("/embed", {"content": b"", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        (
            "/embed",
            {"content": b"--x--", "headers": {"content-type": f"{MULTIPART['content-type']}; charset=PunyCode"}},
            415,
            "utf-8",
        ),
        ("/embed", {"json": {"texts": ["a"]}}, 415, "expected a form"),
        ("/embed", {"data": {}}, 415, "expected a form"),
        ("/embed", {"content": b"", "headers": {"content-type": "application/x-www-form-urlencoded"}}, 422, "neither"),
        ("/embed", {"files": files(b"x" * 50_000)}, 413, "more than 40,000 bytes"),
        ("/nothing", {"data": {"a": "b"}}, 404, "Not Found"),
    ],
)
def test_what_has_no_answer_is_told_why_in_one_line(
    open_client: TestClient, path: str, asked: dict, status: int, said: str
) -> None:
    answer = open_client.post(path, **asked)
    assert (answer.status_code, list(answer.json())) == (status, ["detail"])
    assert said in answer.json()["detail"] and "\n" not in answer.json()["detail"]


def test_a_body_without_a_length_is_counted_too(open_client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    assert open_client.post("/embed", content=chunks(), headers=MULTIPART).status_code == 413


def test_who_has_no_token_gets_health_and_nothing_else(guarded: TestClient) -> None:
    assert guarded.get("/health").json() == {"status": "ok"}
    for path in ("/metrics", "/openapi.json", "/page/", "/nothing"):
        answer = guarded.get(path)
        assert answer.status_code == 401 and "Authorization: Bearer" in answer.json()["detail"], path
    for headers in ({}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": TOKEN}, {"cookie": f"biomedclip={TOKEN}"}):
        answer = guarded.post("/embed", data={"texts": "a"}, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), headers
    assert guarded.post("/embed", data={"texts": "a"}, headers={"authorization": f"bearer {TOKEN}"}).status_code == 200


def test_a_browser_types_the_token_in_once(guarded: TestClient) -> None:
    asked = guarded.get("/", headers={"accept": "text/html"})
    assert (asked.status_code, asked.headers["location"]) == (303, "/login")
    assert 'name="token"' in guarded.get("/login").text
    wrong = guarded.post("/login", data={"token": "wrong"})
    assert wrong.status_code == 401 and "not the token" in wrong.text and "set-cookie" not in wrong.headers
    right = guarded.post("/login", data={"token": TOKEN})
    cookie = right.headers["set-cookie"]
    assert right.status_code == 303 and "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    asked = guarded.get("/metrics", headers={"cookie": cookie.partition(";")[0]})
    assert asked.status_code == 200
    beside = f'a="b; {cookie.partition(";")[0]}; c=d=e;;=;"'
    assert guarded.get("/metrics", headers={"cookie": beside}).status_code == 200
    guarded.cookies.clear()


def test_pages_of_others_and_names_of_others_are_refused(open_client: TestClient) -> None:
    def ask(**headers: str) -> int:
        return open_client.post("/embed", data={"texts": "a"}, headers=headers).status_code

    assert ask(origin="http://127.0.0.1") == 200 == ask(host="localhost:8000", origin="http://localhost:8000")
    assert ask(origin="http://elsewhere.example") == 403 == ask(origin="null")
    assert ask(origin="http://[") == 403 == ask(host="[") == ask(host="[::1", origin="http://[::1"), "no names at all"
    assert ask(host="", origin="null") == 403 == ask(host="", origin="http://")
    assert ask(host="elsewhere.example") == 403, "a name that was made to mean this machine"
    answer = open_client.options("/embed", headers={"origin": "http://elsewhere.example"})
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_headers_keep_a_page_to_itself(open_client: TestClient) -> None:
    headers = open_client.get("/health").headers
    assert "default-src 'self'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"


def test_metrics_count_answers_and_batches(clip: ServedModel) -> None:
    made = server(clip, Settings(limits=LIMITS))
    asked = client(made)
    asked.post("/embed", data={"texts": "a"})
    asked.post("/embed", files=files(b"rubbish"))
    asked.get("/some/path/of/nobody")
    text = asked.get("/metrics").text
    assert 'biomedclip_requests_total{path="/embed",status="200"} 1.0' in text
    assert 'biomedclip_requests_total{path="/embed",status="422"} 1.0' in text
    assert 'biomedclip_requests_total{path="other",status="404"} 1.0' in text
    assert "process_resident_memory_bytes" in text and "biomedclip_body_bytes 0.0" in text
    assert "biomedclip_requests_inside 1.0" in text, "this one"


def test_a_server_that_stops_is_live_and_not_ready(clip: ServedModel) -> None:
    made = server(clip, Settings(limits=LIMITS))
    asked = client(made)
    assert asked.get("/health/ready").status_code == 200
    made.guard.stop()
    assert [asked.get(f"/health/{kind}").status_code for kind in ("ready", "live")] == [503, 200]
    assert asked.post("/embed", data={"texts": "a"}).status_code == 200, "who is inside is answered"


def test_requests_beyond_the_most_are_told_to_come_back(clip: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    made = server(clip, Settings(limits=Limits(requests=2, answer_seconds=30)))
    go_on, inside = threading.Event(), threading.Semaphore(0)

    def embed(images: object, texts: list[str]) -> object:
        inside.release()
        assert go_on.wait(20)
        return {"model": "", "images": [], "texts": [], "warnings": []}

    monkeypatch.setattr(type(made.work), "embed", lambda self, images, texts: embed(images, texts))
    with client(made) as asked, ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(asked.post, "/embed", data={"texts": "a"}) for _ in range(2)]
        assert inside.acquire(timeout=20) and inside.acquire(timeout=20)
        refused = asked.post("/embed", data={"texts": "a"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert asked.get("/health").status_code == 200, "and health is answered meanwhile"
        go_on.set()
        assert [answer.result(20).status_code for answer in answers] == [200, 200]


def test_seats_are_free_again_when_threads_are_done_not_when_patience_ends() -> None:
    async def story() -> None:
        seats, go_on = Seats(1, 0.05), threading.Event()
        with pytest.raises(TooSlow):
            await seats.answer(go_on.wait, 20)
        with pytest.raises(Busy):
            await seats.answer(int)
        go_on.set()
        while seats.taken:
            await asyncio.sleep(0.01)
        assert await seats.answer(int, "3") == 3
        with pytest.raises(ValueError):
            await seats.answer(int, "x")
        assert seats.taken == 0

    asyncio.run(story())


def test_the_schema_says_what_there_is(open_client: TestClient) -> None:
    schema = open_client.get("/openapi.json").json()
    assert {"/classify", "/embed", "/health", "/health/live", "/health/ready", "/metrics"} <= schema["paths"].keys()
    post = schema["paths"]["/classify"]["post"]
    assert list(post["requestBody"]["content"]) == ["multipart/form-data"]
    assert {"200", "400", "401", "403", "408", "413", "415", "422", "429", "503"} == post["responses"].keys()
    for path in ("/docs", "/redoc"):  # would be fetched from elsewhere
        assert open_client.get(path).status_code == 404


@pytest.fixture(scope="module")
def searched(clip: ServedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server with an index of five images, of which two have the licence CC BY."""
    folder = tmp_path_factory.mktemp("images")
    lines = ["image,caption,license"]
    for n in range(5):
        (folder / f"{n}.png").write_bytes(image_file(n))
        lines.append(f"{n}.png,picture {n},{'CC BY' if n > 2 else 'CC0'}")
    (folder / "table.csv").write_text("\n".join(lines))
    update_index(folder / "index", Wanted("a model", (str(folder / "table.csv"),)), lambda: clip)
    settings = Settings(limits=LIMITS)
    with client(Server(Work(clip, LIMITS, open_index(folder / "index")), settings, Metrics())) as made:
        yield made


def test_search_finds_an_image_by_itself_and_by_words(searched: TestClient, clip: ServedModel) -> None:
    found = searched.post("/search", files={"image": ("mine.png", image_file(3))}, data={"top": "2"}).json()
    assert (found["query"], found["kind"], found["searched"]) == ("mine.png", "image", 5)
    assert [hit["rank"] for hit in found["hits"]] == [1, 2]
    best = found["hits"][0]
    assert best["score"] == pytest.approx(1, abs=1e-5) and best["caption"] == "picture 3" and best["license"] == "CC BY"
    found = searched.post("/search", data={"text": "chest ray", "filters": ["license=CC BY"]}).json()
    scores = clip.encode_images([image_file(3), image_file(4)]) @ clip.encode_texts(["chest ray"])[0]
    assert found["searched"] == 2
    assert [hit["score"] for hit in found["hits"]] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"data": {"top": "3"}}, 422, "a text or an image"),
        ({"data": {"text": "a"}, "files": {"image": IMAGE}}, 422, "one of the two"),
        ({"data": {"text": "  "}}, 422, "text: expected words"),
        ({"data": {"text": "a", "filters": "licence=CC BY"}}, 422, "did you mean 'license'?"),
        ({"data": {"text": "a", "top": "1000"}}, 422, "top: "),
        ({"files": {"image": b"rubbish"}}, 422, "not an image"),
    ],
)
def test_a_search_that_cannot_be_made_is_told_why(searched: TestClient, asked: dict, status: int, said: str) -> None:
    answer = searched.post("/search", **({"data": {}} | asked))
    assert answer.status_code == status and said in answer.json()["detail"], answer.text


def test_a_server_without_an_index_says_what_to_do(open_client: TestClient) -> None:
    answer = open_client.post("/search", data={"text": "a"})
    assert answer.status_code == 404 and "start it with --index INDEX" in answer.json()["detail"]


def test_a_heat_map_is_numbers_or_a_picture(open_client: TestClient, clip: ServedModel) -> None:
    asked = {"files": {"image": ("mine.png", IMAGE)}, "data": {"phrase": "chest ray", "against": "the brain"}}
    found = open_client.post("/heatmap", **asked).json()
    expected = heatmap(clip, IMAGE, "chest ray", against=["the brain"])
    assert (found["image"], found["phrases"], found["findings"]) == ("mine.png", ["chest ray"], ["the brain"])
    for method, maps in expected.maps.items():
        np.testing.assert_allclose(found["methods"][method]["maps"]["chest ray"], maps[0], atol=1e-5)
    asked["data"]["format"] = "png"
    answer = open_client.post("/heatmap", **asked)
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).width > 800


@pytest.mark.parametrize(
    ("content", "data", "said"),
    [
        (IMAGE, {"phrase": " "}, "phrase: expected words"),
        (IMAGE, {"phrase": "a", "against": "a"}, "is a phrase itself"),
        (IMAGE, {"phrase": "a", "format": "gif"}, "format: "),
        (IMAGE, {}, "phrase: missing"),
        (b"rubbish", {"phrase": "a"}, "not an image"),
    ],
)
def test_a_heat_map_that_cannot_be_drawn_is_told_why(open_client: TestClient, content: bytes, data: dict, said: str) -> None:
    answer = open_client.post("/heatmap", files={"image": content}, data=data)
    assert answer.status_code == 422 and said in answer.json()["detail"], answer.text
