"""Requests that the schema allows, as schemathesis makes them: answered as it says, and no error of the server.

Its checks of what is accepted and what is refused are not asked: `{}` in a form is a text and no wrong type, and that
a file must be an image, one label is no choice, and nothing at all is no question, a schema cannot say.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from helpers.served import listening, served, server, write_model
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from biomedclip_jax.serve._metrics import Metrics
from biomedclip_jax.serve.settings import Limits, Settings

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
LIMITS = Limits(pixels=5_000, images=3, texts=20, characters=200)
FEW = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = write_model(tmp_path_factory.mktemp("model"))
    with listening(server(served(folder, Metrics()), Settings(port=0, limits=LIMITS))) as port:
        yield f"http://127.0.0.1:{port}"


def test_what_the_schema_allows_is_answered_as_it_says(address: str) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {each.path for each in operations} >= {"/classify", "/embed", "/search", "/heatmap", "/health", "/metrics"}
    seen: list[int] = []
    for operation in operations:

        @FEW
        @given(case=operation.as_strategy())
        def answered(case: Any) -> None:
            answer = case.call()
            seen.append(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

        answered()
    assert len(seen) > 30 and {200, 422} <= set(seen) and max(seen) < 500
