"""How long a search in a million vectors takes, and how many of the exact neighbours approximate ones find.

    python docs/measure_search.py vectors/ --rows 1000000 --methods exact ivf ivf-sq8 ivf-pq hnsw

The vectors are made, as no archive of that size can be shipped: kinds of image of very different sizes, sorts within
them, articles with a few figures alike, and noise that falls off from axis to axis, all in the narrow cone that the
embeddings of such models lie in. Half of the queries are further images, half lie off the cone as texts do.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.bench._machine import measured_on
from biomedclip_jax.search._exact import nearest
from biomedclip_jax.support.parallel import core_count

WIDTH = 512
_KINDS, _SORTS, _ARTICLE = 64, 4_096, 8  # of images; images of an article
_PART = 65_536
_TOP = 10

Search = Callable[[np.ndarray], np.ndarray]  # queries [Q, E] -> positions [Q, k], -1 where nothing was found


class Made:
    """Vectors that have the structure of an archive's, the same for the same seed."""

    def __init__(self, seed: int = 0):
        self._random = random = np.random.default_rng(seed)
        self._axes = (np.arange(1, WIDTH + 1) ** -0.5).astype(np.float32)  # some directions matter more
        self._axes /= np.linalg.norm(self._axes)
        self._turn = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
        self._cone, self._gap = self._drawn(1)[0], self._drawn(1)[0]
        kinds = self._drawn(_KINDS)
        self._sorts = 0.8 * kinds[random.integers(0, _KINDS, _SORTS)] + 0.6 * self._drawn(_SORTS)
        share = 1 / np.arange(1, _SORTS + 1) ** 0.8  # a few sorts are most of the archive
        self._share = share / share.sum()

    def _drawn(self, count: int) -> np.ndarray:
        return self._random.normal(size=(count, WIDTH)).astype(np.float32) * self._axes

    def images(self, count: int) -> np.ndarray:
        """Unit vectors of images, float32 [count, 512]; those of an article stand together."""
        articles = -(-count // _ARTICLE)
        own = self._sorts[self._random.choice(_SORTS, articles, p=self._share)] + 0.6 * self._drawn(articles)
        return self._finished(self._cone * 1.2 + np.repeat(own, _ARTICLE, axis=0)[:count] + 0.35 * self._drawn(count))

    def texts(self, count: int) -> np.ndarray:
        """Unit vectors of texts about such images."""
        own = self._sorts[self._random.choice(_SORTS, count, p=self._share)] + 0.5 * self._drawn(count)
        return self._finished(self._cone * 0.5 + self._gap * 1.2 + 0.6 * own)

    def _finished(self, rows: np.ndarray) -> np.ndarray:
        rows = rows @ self._turn
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make(folder: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The vectors, memory-mapped from a file that is made once, and 200 queries."""
    made = Made()
    queries = np.concatenate([made.images(100), made.texts(100)])
    file = folder / f"{rows}.float32"
    if not file.exists() or file.stat().st_size != 4 * rows * WIDTH:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            for start in range(0, rows, _PART):
                made.images(min(_PART, rows - start)).tofile(out)
    return np.memmap(file, np.float32, "r", shape=(rows, WIDTH)), queries


def exact(vectors: np.ndarray, _: Path) -> Iterator[tuple[str, float, int, Search]]:
    """All vectors, as `biomedclip search` compares them."""

    def search(queries: np.ndarray) -> np.ndarray:
        return np.stack([positions for positions, _ in nearest(vectors, queries, _TOP)])

    yield "exact", 0.0, vectors.nbytes, search


def faiss_methods(name: str) -> Callable[[np.ndarray, Path], Iterator[tuple[str, float, int, Search]]]:
    """FAISS: an index by its factory's name, searched with some settings."""

    def method(vectors: np.ndarray, folder: Path) -> Iterator[tuple[str, float, int, Search]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
        count = len(vectors)
        lists = 2 ** round(np.log2(4 * np.sqrt(count)))
        factory, settings = {
            "ivf": (f"IVF{lists},Flat", (16, 64)),
            "ivf-sq8": (f"IVF{lists},SQ8", (16, 64, 128)),
            "ivf-pq": (f"IVF{lists},PQ64", (1, 64)),
            "hnsw": ("HNSW32,Flat", (16, 64, 256)),
            "hnsw-sq8": ("HNSW32,SQ8", (64, 128, 256)),
        }[name]
        faiss.omp_set_num_threads(core_count())
        began = time.monotonic()
        index: Any = faiss.index_factory(WIDTH, factory, faiss.METRIC_INNER_PRODUCT)
        some = np.sort(np.random.default_rng(0).permutation(count)[: 40 * lists])
        if not index.is_trained:
            index.train(np.ascontiguousarray(vectors[some]))
        for start in range(0, count, _PART):
            index.add(np.ascontiguousarray(vectors[start : start + _PART]))
        built = time.monotonic() - began
        file = folder / f"{name}.faiss"
        faiss.write_index(index, str(file))
        size = file.stat().st_size
        file.unlink()
        for setting in settings:
            for again in (0, 100) if "flat" not in factory.lower() else (0,):
                if name.startswith("ivf"):
                    index.nprobe = setting
                else:
                    index.hnsw.efSearch = setting
                yield f"{factory} at {setting}{f', {again} again' if again else ''}", built, size, _faiss(index, vectors, again)

    return method


def _faiss(index: Any, vectors: np.ndarray, again: int) -> Search:
    """again: so many are fetched and compared again with their own vectors."""

    def search(queries: np.ndarray) -> np.ndarray:
        _, positions = index.search(np.ascontiguousarray(queries), again or _TOP)
        return compared_again(vectors, queries, positions) if again else positions

    return search


def compared_again(vectors: np.ndarray, queries: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The best of the positions by their exact scores."""
    scores = np.stack([vectors[np.maximum(own, 0)] @ query for own, query in zip(positions, queries, strict=True)])
    order = np.argsort(-np.where(positions < 0, -np.inf, scores), axis=1, kind="stable")[:, :_TOP]
    return np.take_along_axis(positions, order, axis=1)


def usearch(vectors: np.ndarray, folder: Path) -> Iterator[tuple[str, float, int, Search]]:
    """USearch's graph, with its usual settings, in float16."""
    from usearch.index import Index  # type: ignore[import-not-found]

    began = time.monotonic()
    index = Index(ndim=WIDTH, metric="ip", dtype="f16")
    for start in range(0, len(vectors), _PART):
        part = vectors[start : start + _PART]
        index.add(np.arange(start, start + len(part)), np.ascontiguousarray(part), threads=core_count())
    built = time.monotonic() - began
    file = folder / "usearch"
    index.save(str(file))
    for expansion in (64, 256):
        index.expansion_search = expansion
        size = file.stat().st_size

        def search(queries: np.ndarray) -> np.ndarray:
            return np.stack([index.search(query, _TOP).keys for query in queries]).astype(np.int64)

        yield f"USearch f16 at {expansion}", built, size, search


def lancedb(vectors: np.ndarray, folder: Path) -> Iterator[tuple[str, float, int, Search]]:
    """LanceDB with the index that it makes by itself (IVF_PQ), and with more work a query."""
    import lancedb as lance  # type: ignore[import-not-found]
    import pyarrow

    began = time.monotonic()
    kind = pyarrow.list_(pyarrow.float32(), WIDTH)

    def batches() -> Iterator[Any]:
        for start in range(0, len(vectors), _PART):
            part = np.ascontiguousarray(vectors[start : start + _PART])
            own = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(part.reshape(-1)), WIDTH)
            yield pyarrow.record_batch({"vector": own, "row": pyarrow.array(np.arange(start, start + len(part)))})

    schema = pyarrow.schema([("vector", kind), ("row", pyarrow.int64())])
    table = lance.connect(str(folder / "lance")).create_table("rows", batches(), schema=schema, mode="overwrite")
    table.create_index(metric="dot", vector_column_name="vector")
    built = time.monotonic() - began
    size = sum(path.stat().st_size for path in (folder / "lance").rglob("*") if path.is_file() and "_indices" in str(path))
    for probes, refine in ((None, None), (64, 10)):

        def search(queries: np.ndarray, probes: int | None = probes, refine: int | None = refine) -> np.ndarray:
            found = []
            for query in queries:
                asked = table.search(query).metric("dot").limit(_TOP)
                asked = asked.nprobes(probes).refine_factor(refine) if probes else asked
                rows = asked.to_arrow()["row"].to_pylist()
                found.append(np.array(rows + [-1] * (_TOP - len(rows))))
            return np.stack(found)

        yield "LanceDB IVF_PQ " + (f"at {probes}, refined {refine} x" if probes else "as it comes"), built, size, search


METHODS = {"exact": exact, "usearch": usearch, "lancedb": lancedb} | {
    name: faiss_methods(name) for name in ("ivf", "ivf-sq8", "ivf-pq", "hnsw", "hnsw-sq8")
}


def recall(found: np.ndarray, vectors: np.ndarray, queries: np.ndarray, floors: np.ndarray) -> float:
    """Which share of what was found scores as high as the exact tenth: of equal scores any is right."""
    scores = np.stack([vectors[np.maximum(own, 0)] @ query for own, query in zip(found, queries, strict=True)])
    return float(((scores >= floors[:, None] - 1e-6) & (found >= 0)).mean())


def main() -> None:
    """Measure and print a row of a table for each method and setting, and a line of JSON each into OUT/results.jsonl."""
    parser = argparse.ArgumentParser(description="Time searches in made vectors.")
    parser.add_argument("folder", type=Path, help="takes the vectors, 2 kB a row, and results.jsonl")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["exact", "ivf", "ivf-sq8", "ivf-pq", "hnsw"])
    arguments = parser.parse_args()
    vectors, queries = make(arguments.folder, arguments.rows)
    print(f"{len(vectors):,} vectors of {WIDTH}, {len(queries)} queries; {measured_on()}")
    floors = np.array([scores[-1] for _, scores in nearest(vectors, queries, _TOP)])
    print("| search | built in | size | the quickest of 40 queries | recall at 10: images | texts |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in arguments.methods:
        for said, built, size, search in METHODS[name](vectors, arguments.folder):
            one = []
            for query in queries[::5]:
                began = time.perf_counter()
                search(query[None])
                one.append(time.perf_counter() - began)
            found = search(queries)
            right = [recall(found[part], vectors, queries[part], floors[part]) for part in (slice(0, 100), slice(100, None))]
            row = {
                "search": said,
                "built": built,
                "size": size,
                "query": min(one),
                "median": float(np.median(one)),
                "recall": right,
            }
            shown = f"{built:,.0f} s | {size / 2**20:,.0f} MiB | {1000 * row['query']:.1f} ms | {right[0]:.3f} | {right[1]:.3f}"
            print(f"| {said} | {shown} |", flush=True)
            with (arguments.folder / "results.jsonl").open("a") as out:
                out.write(json.dumps(row | {"load": os.getloadavg()[0]}) + "\n")


if __name__ == "__main__":
    main()
