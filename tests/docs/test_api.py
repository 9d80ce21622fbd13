"""docs/api.md is what docs/make_api.py writes."""

import runpy
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date() -> None:
    page = runpy.run_path(str(REPOSITORY / "docs" / "make_api.py"))["page"]()
    written = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    assert written == page, "docs/api.md is not what the docstrings say: run `python docs/make_api.py`"
    for name in ("from_pretrained", "Pretrained.classify", "TrainConfig", "local_loss", "open_pairs"):
        assert name in page
