import datetime
import types

import pytest

from biomedclip_jax.bench._machine import measured_on, version_of

INTEL = """processor	: 0
cpu family	: 6
model		: 207
model name	: A Processor

processor	: 1
model name	: B
"""


@pytest.mark.parametrize(("content", "name"), [(INTEL, "A Processor (family 6, model 207)"), ("model name : ARM\n", "ARM")])
def test_the_processor_and_the_day_are_said(tmp_path, monkeypatch, content, name) -> None:
    monkeypatch.setattr("biomedclip_jax.bench._machine.core_count", lambda: 2)
    (tmp_path / "cpuinfo").write_text(content, encoding="utf-8")
    assert measured_on(tmp_path / "cpuinfo") == f"on 2 cores of {name}, {datetime.date.today()}"


def test_without_a_list_of_processors_there_is_a_name(tmp_path) -> None:
    words = measured_on(tmp_path / "none").split(" cores of ")[1]
    assert words.split(",")[0]


def test_the_version_is_of_what_was_imported() -> None:
    module = types.ModuleType("open_clip")
    module.__version__ = "4.2.0.dev0"
    assert version_of(module) == "4.2.0.dev0"
