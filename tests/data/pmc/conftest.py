"""The articles that tests write, and a local S3 that holds them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.faulty_s3 import FaultyS3, faulty_s3
from helpers.jats_writer import write_articles
from helpers.written_articles import ARTICLES


@pytest.fixture(scope="session")
def pmc_articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine written articles: cloud/, packages/ and expected.json, what is to be found in them."""
    return write_articles(tmp_path_factory.mktemp("pmc-articles"), ARTICLES)


@pytest.fixture(scope="session")
def _server(pmc_articles: Path) -> Iterator[FaultyS3]:
    with faulty_s3(pmc_articles / "cloud") as server:
        yield server


@pytest.fixture
def s3(_server: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The written articles in a bucket, at the endpoint that the environment names; what a test changes there is undone."""
    from botocore.retries.standard import ExponentialBackoff

    from biomedclip_jax.data.pmc.sources import _s3 as ours

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", _server.endpoint)
    monkeypatch.setattr(ours, "_PAUSE", 0.01)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)
    ours._client.cache_clear()
    yield _server
    _server.restore()
    ours._client.cache_clear()
