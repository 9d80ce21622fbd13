"""A finding against its absence: sentences, the probability of both, and the file in which users write their own."""

from pathlib import Path

import numpy as np
import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.prompts.findings import (
    FindingPrompts,
    check_finding_words,
    finding_sentences,
    log_odds_of_both,
    probabilities_of,
    read_finding_prompts,
    write_finding_prompts,
)

FINDINGS = ("Pleural_Thickening", "Mass")


def test_sentences() -> None:
    prompts = FindingPrompts.default(FINDINGS)
    assert prompts.flat == ["Pleural Thickening", "Mass", "no Pleural Thickening", "no Mass"]
    assert FindingPrompts.from_templates(["mass"], ["an X-ray with {}"]).negative.flat == ["an X-ray with no mass"]
    with pytest.raises(UserError, match=r"expected \{\}"):
        FindingPrompts.from_templates(["mass"], ["an X-ray"])


def test_the_probability_is_the_softmax_over_both() -> None:
    positive, negative = np.array([[0.3, 0.2]], np.float32), np.array([[0.1, 0.25]], np.float32)
    both = np.exp(80 * np.stack([positive, negative]).astype(np.float64))
    assert probabilities_of(log_odds_of_both(positive, negative, 80)) == pytest.approx((both / both.sum(axis=0))[0], abs=1e-12)
    assert probabilities_of(np.array([-2_000.0, 0, 2_000])).tolist() == [0, 0.5, 1]


def test_what_is_one_text_to_the_model() -> None:
    prompts = FindingPrompts.default(("a", "b"))
    text = np.eye(4, dtype=np.float32)
    prompts.check_told_apart("x", ("a", "b"), text)
    with pytest.raises(UserError, match="x: 'a' and 'b' are one text"):
        prompts.check_told_apart("x", ("a", "b"), text[[0, 0, 2, 3]])
    with pytest.raises(UserError, match="x: 'b' and 'no b' are one text"):
        prompts.check_told_apart("x", ("a", "b"), text[[0, 1, 2, 1]])
    with pytest.raises(UserError, match="'1' is a number"):
        check_finding_words("x", ("1", "0"))


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    write_finding_prompts(path, FINDINGS)
    assert read_finding_prompts(path, FINDINGS) == FindingPrompts.default(FINDINGS)
    write_finding_prompts(path, FINDINGS, prompts := FindingPrompts.from_templates(["x", "y"], ["a {}", "{} there"]))
    assert read_finding_prompts(path, FINDINGS) == prompts
    path.write_text("templates: ['a {}']\nfindings: {Mass: {positive: [m, n], negative: [o]}, Pleural_Thickening: thick}")
    read = read_finding_prompts(path, FINDINGS)
    assert read.positive.sentences == (("a thick",), ("m", "n")) and read.negative.sentences == (("a no thick",), ("o",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("classes: {}", "expected the keys 'templates' and 'findings', found 'classes'"),
        ("findings: {Mass: m}", "finding 'Pleural_Thickening': missing"),
        ("findings: {Mass: m, Pleural_Thickening: p, Hernia: h}", "unknown finding 'Hernia'"),
        ("findings: {Mass: {positive: [m]}, Pleural_Thickening: p}", "expected a phrase, or positive"),
        ("findings: {Mass: {positive: [], negative: [x]}, Pleural_Thickening: p}", "expected a phrase, or positive"),
        ("findings: [Mass]", "findings: expected a line"),
        ("templates: [x]", "expected {} where"),
        ("templates: x", "templates: expected a list"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_finding_prompts(path, FINDINGS)
    assert str(caught.value).startswith(str(path))


def test_an_absence_is_no_finding() -> None:
    with pytest.raises(UserError, match=r"^'No edema': expected the finding itself, which is asked with and without 'no'"):
        finding_sentences(["edema", "No edema"])
    assert finding_sentences(["nodule"]).negative.flat == ["no nodule"]
