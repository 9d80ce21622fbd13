"""An index on a Qdrant server, which compares the vectors; hits, scores and their order are those of a folder."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.search._exact import exact_scores, nearest
from biomedclip_jax.search._folder import Manifest
from biomedclip_jax.search._server import FIRST, GONE, Server, from_text, number_key, payload_key, to_text
from biomedclip_jax.search.filters import Filter
from biomedclip_jax.search.hits import Hit, make_hit
from biomedclip_jax.search.index import Index

_MARGIN = 1e-5  # by which the server's scores, float32, may err: what is that close is computed again
_AGAIN = 100  # vectors that are compared again, at least


def open_collection(address: str) -> "ServerIndex":
    """Open an index on a server. UserError for what is none, and for a server that does not answer."""
    server = Server(address)
    manifest = server.read_manifest()
    if manifest is None:
        raise UserError(f"{address}: no index in this collection, or no such collection; `biomedclip index --out` makes one")
    if not manifest.number:
        raise UserError(f"{address}: its first `biomedclip index` is not finished; run that again")
    return ServerIndex(server, manifest)


class ServerIndex(Index):
    """An index in a collection; `Index` says what the methods do. Positions are the numbers of points."""

    def __init__(self, server: Server, manifest: Manifest):
        super().__init__(server.address, manifest)
        self._server = server

    def _search(
        self, queries: np.ndarray, top: int, filters: Sequence[Filter], leave_out: Sequence[int], exact: bool
    ) -> list[list[Hit]]:
        """What the server finds best is compared again here, so that scores are those of a folder."""
        where = self._where(filters, leave_out)
        found = [self._nearest(query, top, where) if exact else self._near(query, top, where) for query in queries]
        hits = []
        for query, positions in zip(queries, found, strict=True):
            rows = self.vectors(positions)
            ((best, scores),) = nearest(rows, query[None], top)
            cells = self._cells([positions[row] for row in best.tolist()])
            hits.append([make_hit(score, *own) for score, own in zip(scores.tolist(), cells.items(), strict=True)])
        self._check_same_state()
        return hits

    def _nearest(self, query: np.ndarray, top: int, where: Any) -> list[int]:
        """Points among which the nearest are and all that score like the last of them, rising."""
        limit = top + 64
        while True:
            points = self._scored(query, limit, where)
            if len(points) < limit or points[-1].score < points[top - 1].score - _MARGIN:
                floor = points[min(top, len(points)) - 1].score - _MARGIN if points else 0
                return sorted(point.id for point in points if point.score >= floor)
            limit *= 4

    def _near(self, query: np.ndarray, top: int, where: Any) -> list[int]:
        """Points that the server's graph leads to, rising."""
        return sorted(point.id for point in self._scored(query, max(_AGAIN, 4 * top), where, exact=False))

    def _scored(self, query: np.ndarray, limit: int, where: Any, payload: Sequence[str] = (), exact: bool = True) -> list[Any]:
        """Points with the server's scores, the best first."""
        from qdrant_client import models

        graph = self._manifest.approximate or {}
        how = models.SearchParams(exact=True) if exact else models.SearchParams(hnsw_ef=max(graph["ef"], limit))
        given = {"query": query.tolist(), "query_filter": where, "limit": limit, "search_params": how}
        return self._server.ask("query_points", **given, with_payload=list(payload) or False).points

    def _search_groups(
        self, queries: np.ndarray, column: str, top: int, filters: Sequence[Filter], leave_out: Sequence[int], pool: str
    ) -> list[Hit]:
        """The means of pool "mean" are of the server's scores, float32, of all images."""
        if pool == "mean":
            queries = queries.astype(np.float64).mean(axis=0, keepdims=True).astype(np.float32)
        where = self._where(filters, leave_out)
        total = self._server.ask("count", count_filter=where, exact=True).count
        limit = total if pool == "mean" else min(total, 8 * top)
        while True:
            members, floor = self._members(queries, column, where, limit, total)
            rough = {name: _pooled(list(own.values()), pool) for name, own in members.items()}
            last = sorted(rough.values(), reverse=True)[top - 1] if len(rough) >= top else -np.inf
            if limit >= total or last - _MARGIN > floor:
                break
            limit = min(total, 4 * limit)
        chosen = [members[name] for name, score in rough.items() if score >= last - _MARGIN]
        hits = self._group_hits(queries, chosen, pool)[:top]
        found = self._named(hits, column, where if pool == "best" else None)
        self._check_same_state()
        return found

    def _members(
        self, queries: np.ndarray, column: str, where: Any, limit: int, total: int
    ) -> tuple[dict[str | int, dict[int, float]], float]:
        """The images of each group with their best scores, and below which score there may be others."""
        members: dict[str | int, dict[int, float]] = {}
        floor, key = -np.inf, payload_key(column)
        for query in queries if limit else ():
            points = self._scored(query, limit, where, [key])
            for point in points:
                own = members.setdefault((point.payload or {}).get(key, point.id), {})
                own[point.id] = max(own.get(point.id, -np.inf), point.score)
            if limit < total:
                floor = max(floor, points[-1].score)
        return members, floor

    def _group_hits(
        self, queries: np.ndarray, chosen: Sequence[Mapping[int, float]], pool: str
    ) -> list[tuple[float, int, int]]:
        """Score, nearest image and number of images of each group, the best first."""
        near = [sorted(row for row, score in own.items() if score >= max(own.values()) - 2 * _MARGIN) for own in chosen]
        rows = sorted({row for own in near for row in own})
        vectors = self.vectors(rows)
        every = np.arange(len(rows))
        exact = np.max([exact_scores(vectors, query, every) for query in queries], axis=0) if rows else np.empty(0)
        score_of = dict(zip(rows, exact.tolist(), strict=True))
        found = []
        for own, close in zip(chosen, near, strict=True):
            best = max(close, key=lambda row: (score_of[row], -row))
            score = score_of[best] if pool == "best" else _pooled(list(own.values()), pool)
            found.append((score, best, len(own)))
        return sorted(found, key=lambda each: (-each[0], each[1]))

    def _named(self, found: Sequence[tuple[float, int, int]], column: str, where: Any) -> list[Hit]:
        """The groups as hits. where: to count their images, if not all of them were seen."""
        cells = self._cells([best for _, best, _ in found])
        hits = []
        for score, best, images in found:
            name = cells[best].get(column)
            if where is not None and name:
                images = self._server.ask("count", count_filter=_also(where, column, name), exact=True).count
            hits.append(make_hit(score, best, cells[best], name or cells[best]["id"], images))
        return hits

    def matching(self, filters: Sequence[str | Filter] = ()) -> int:
        """How many images the filters leave."""
        where = self._where(self.parsed(filters), ())
        return self._server.ask("count", count_filter=where, exact=True).count if filters else len(self)

    def positions(self, column: str, text: str) -> list[int]:
        """The points in which a column says this; none is an empty list."""
        self._check_column(column)
        return [point.id for point in self._server.scroll(self._where([Filter(column, "=", text)], ()), [])] if text else []

    def values(self, column: str) -> dict[str, int]:
        """The different texts of a column, each with the number of images, the most frequent first."""
        self._check_column(column)
        key = payload_key(column)
        counts = Counter((point.payload or {}).get(key, "") for point in self._server.scroll(self._where((), ()), [key]))
        return {from_text(text): count for text, count in counts.most_common()}

    def vectors(self, positions: Sequence[int]) -> np.ndarray:
        """The vectors of some points, float32 [n, E]."""
        return self._server.vectors(positions, self.model.width)

    def hit(self, position: int) -> Hit:
        """What is known of a point; its score is 1."""
        return make_hit(1.0, int(position), self._cells([position])[int(position)])

    def _hidden(self, position: int) -> Mapping[str, str]:
        hidden = [name for name in self._manifest.columns if name.startswith(" ")]
        return self._cells([position], hidden)[position]

    def _cells(self, positions: Sequence[int], columns: Sequence[str] | None = None) -> dict[int, dict[str, str]]:
        """What is known of some rows, in their order."""
        keys = {name: payload_key(name) for name in columns or self.columns}
        found = self._server.retrieve(positions, list(keys.values()))
        payloads = {number: point.payload or {} for number, point in found.items()}
        return {
            int(row): {name: from_text(payloads[int(row)][key]) for name, key in keys.items() if key in payloads[int(row)]}
            for row in positions
        }

    def _where(self, filters: Sequence[Filter], leave_out: Sequence[int]) -> Any:
        return conditions(self._manifest.number, filters, leave_out)

    def _check_same_state(self) -> None:
        """UserError where the state that was searched does not count any more: some of its rows may have been removed."""
        now = self._server.read_manifest()
        if now is None or now.state != self._manifest.state:
            raise UserError(f"{self.folder}: was brought up to date since it was opened; search again, in Python open it again")


def conditions(state: int, filters: Sequence[Filter], leave_out: Sequence[int] = ()) -> Any:
    """What a point must be to count in a state and to be wanted, as the server's filter."""
    from qdrant_client import models

    must: list[Any] = [models.FieldCondition(key=FIRST, range=models.Range(lte=state))]
    must_not: list[Any] = [models.FieldCondition(key=GONE, range=models.Range(lte=state))]
    names = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
    for each in filters:
        if each.sign in names:
            limits = models.Range(**{names[each.sign]: each.number})
            must.append(models.FieldCondition(key=number_key(each.column), range=limits))
        else:
            (must if each.sign == "=" else must_not).append(_says(each.column, each.value))
    if len(leave_out):
        must_not.append(models.HasIdCondition(has_id=[int(each) for each in leave_out]))
    return models.Filter(must=must, must_not=must_not)


def _says(column: str, text: str) -> Any:
    """The condition that a column says this; "" for nothing."""
    from qdrant_client import models

    key = payload_key(column)
    if not text:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    return models.FieldCondition(key=key, match=models.MatchValue(value=to_text(text)))


def _also(where: Any, column: str, text: str) -> Any:
    return where.model_copy(update={"must": [*where.must, _says(column, text)]})


def _pooled(scores: Sequence[float], pool: str) -> float:
    return max(scores) if pool == "best" else sum(scores) / len(scores)
