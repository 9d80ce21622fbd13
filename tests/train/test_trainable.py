"""Which parameters a pattern means, and what is said of one that means none."""

import pytest
from flax.traverse_util import flatten_dict
from helpers import tiny

from biomedclip_jax.errors import UserError
from biomedclip_jax.models import abstract_model
from biomedclip_jax.train.optimizer import check_patterns, chosen, matches

PATHS = list(flatten_dict(abstract_model(tiny.MODEL)[1], sep="/"))


@pytest.mark.parametrize(
    ("pattern", "means", "not_means"),
    [
        ("text", ["text/word", "text/blocks/mlp/fc1/kernel"], ["text_head/fc1/kernel", "image/position"]),
        ("*", PATHS, []),
        ("*_head", ["text_head/fc1/kernel", "image_head/proj/kernel"], ["text/word", "image/patch/kernel"]),
        ("*/bias", ["image/blocks/mlp/fc1/bias", "text/norm/bias"], ["image/blocks/mlp/fc1/kernel", "logit_scale"]),
        ("logit_scale", ["logit_scale"], ["text/norm/scale"]),
        ("image/blocks/attention", ["image/blocks/attention/qkv/bias"], ["text/blocks/attention/qkv/bias"]),
        ("image/blocks/norm?", ["image/blocks/norm1/scale", "image/blocks/norm2/bias"], ["image/norm/scale"]),
        ("*/[qk]*", ["image/blocks/attention/qkv/bias", "text/norm/../kernel"], ["text/norm/bias"]),
    ],
)
def test_what_a_pattern_means(pattern: str, means: list[str], not_means: list[str]) -> None:
    assert all(matches(path, pattern) for path in means)
    assert not any(matches(path, pattern) for path in not_means)


def test_case_matters() -> None:
    assert not matches("text/word", "Text")


def test_chosen_keeps_the_order_and_names_each_once() -> None:
    found = chosen(PATHS, ["text_head", "*/bias", "*_head"])
    assert found == [path for path in PATHS if "_head/" in path or path.endswith("/bias")]
    assert len(found) == len(set(found)) > 2 and chosen(PATHS, []) == []


@pytest.mark.parametrize(
    ("pattern", "near"),
    [("txt", "text"), ("image/block", "image/blocks"), ("logit_scal", "logit_scale"), ("text_heads", "text_head")],
)
def test_a_pattern_without_a_parameter_is_an_error_with_the_nearest_path(pattern: str, near: str) -> None:
    check_patterns(PATHS, [near], "x")
    with pytest.raises(UserError) as caught:
        check_patterns(PATHS, ["text", pattern], "OptimizerConfig.groups")
    assert str(caught.value) == f"OptimizerConfig.groups: {pattern!r} is no parameter of this model; did you mean {near!r}?"
