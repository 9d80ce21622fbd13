"""What a filter means, and one line for one that means nothing."""

import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.search.filters import Filter, parse_filters

COLUMNS = ["license", "year", "köln", "a b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("license=CC BY", Filter("license", "=", "CC BY")),
        (" license != CC BY ", Filter("license", "!=", "CC BY")),
        ("license='CC BY'", Filter("license", "=", "CC BY")),
        ('license="it\'s"', Filter("license", "=", "it's")),
        ("license=a=b", Filter("license", "=", "a=b")),
        ("license=<5", Filter("license", "=", "<5")),
        ("license=", Filter("license", "=", "")),
        ("year>=2015", Filter("year", ">=", "2015")),
        ("year<1e3", Filter("year", "<", "1e3")),
        ("köln=ß", Filter("köln", "=", "ß")),
        ("a b=c", Filter("a b", "=", "c")),
    ],
)
def test_a_filter_is_read_as_it_is_written(text: str, expected: Filter) -> None:
    assert parse_filters([text], COLUMNS) == [expected]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("licens=x", "no column 'licens'; there are license, year, köln, a b; did you mean 'license'?"),
        ("license", "expected COLUMN=VALUE"),
        ("=x", "expected COLUMN=VALUE"),
        ("year>new", "> compares numbers, and 'new' is none"),
        ("year<nan", "< compares numbers"),
    ],
)
def test_a_wrong_filter_is_one_line(text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        parse_filters([text], COLUMNS)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_what_is_wanted() -> None:
    assert [text for text in ("CC BY", "cc by", "CC BY-NC", "") if Filter("l", "=", "CC BY").wants(text)] == ["CC BY"]
    assert [text for text in ("CC BY", "", "x") if Filter("l", "!=", "CC BY").wants(text)] == ["", "x"]
    assert [text for text in ("9", "10", "10.0", "11", "", "old", "nan") if Filter("y", ">=", "10").wants(text)] == [
        "10",
        "10.0",
        "11",
    ]
    assert [text for text in ("9", "10", "") if Filter("y", "<", "10").wants(text)] == ["9"]
