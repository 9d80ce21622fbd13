"""What is said of a finding that is there, and of one that is not: "pneumonia" against "no pneumonia", CheXzero's way.

Of each finding the softmax over both is a probability of its own: they do not sum to 1 over the findings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.prompts.templates import (
    Prompts,
    check_labels,
    check_told_apart,
    check_words,
    class_embeddings,
    in_words,
    read_yaml,
    yaml_of,
)

TEMPLATES = ("{}",)  # CheXzero's (Tiu et al. 2022)
_NO = "no {}"
_FORM = "expected a phrase, or positive: [sentences] and negative: [sentences]"


@dataclass(frozen=True)
class FindingPrompts:
    """Sentences that say that a finding is there, and sentences that say that it is not, for each finding in order."""

    positive: Prompts
    negative: Prompts

    @staticmethod
    def from_templates(phrases: Sequence[str], templates: Sequence[str] = TEMPLATES) -> "FindingPrompts":
        """Each template filled in with "pneumonia" and with "no pneumonia".

        UserError for a template without {}, and for "no pneumonia" as a finding, which would be asked with "no no pneumonia".
        """
        if denied := [phrase for phrase in phrases if phrase.casefold().startswith("no ")]:
            raise UserError(
                f"{denied[0]!r}: expected the finding itself, which is asked with and without 'no'; a name that says that "
                "there is none is no finding"
            )
        absent = [_NO.replace("{}", phrase) for phrase in phrases]
        return FindingPrompts(Prompts.from_templates(phrases, templates), Prompts.from_templates(absent, templates))

    @staticmethod
    def default(findings: Sequence[str]) -> "FindingPrompts":
        """For findings without words of their own: each one's name in words, in `TEMPLATES`."""
        return FindingPrompts.from_templates([in_words(name) for name in findings])

    @property
    def flat(self) -> list[str]:
        """All sentences: the positive ones, finding by finding, then the negative ones."""
        return [*self.positive.flat, *self.negative.flat]

    def divided(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of `flat` as those of the positive and those of the negative sentences."""
        split = len(self.positive.flat)
        return text[:split], text[split:]

    def check_told_apart(self, source: str, findings: Sequence[str], text: np.ndarray, model: str = "this model") -> None:
        """UserError where two findings, or a finding and its absence, are one text to the model. text: of `flat`."""
        positive, negative = (
            class_embeddings(own, prompts)
            for own, prompts in zip(self.divided(text), (self.positive, self.negative), strict=True)
        )
        check_told_apart(source, findings, positive, model)
        for name, own, other in zip(findings, positive, negative, strict=True):
            check_told_apart(source, (name, f"no {name}"), np.stack([own, other]), model)


def check_finding_words(source: str, findings: Sequence[str]) -> None:
    """UserError for findings whose names are numbers, which say nothing to a model."""
    check_words(source, findings, "give words with --prompts FILE.yaml (--write-prompts begins one)")


def finding_sentences(labels: Sequence[str] | None, template: str | None = None) -> FindingPrompts:
    """A template, by default "{}", filled in with each label and with "no" and the label.

    UserError for labels that are no different names in words, and for a template without {}.
    """
    if labels is None:
        raise UserError("labels: none given; expected at least one")
    return FindingPrompts.from_templates(check_labels(labels, fewest=1), TEMPLATES if template is None else [template])


def log_odds_of_both(positive: np.ndarray, negative: np.ndarray, scale: float) -> np.ndarray:
    """The logit of each probability, float64 [n, F], from cosines to the positive and to the negative sentences.

    scale: of the model; its softmax over both is 1 / (1 + exp(-logit)).
    """
    return scale * (positive.astype(np.float64) - negative.astype(np.float64))


def probabilities_of(log_odds: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), float64, without overflow."""
    small = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1, small) / (1 + small)


def read_finding_prompts(path: Path, findings: Sequence[str]) -> FindingPrompts:
    """The prompts of a YAML file that `write_finding_prompts` has begun:

        templates: ["{}"]                  # with "no" before the phrase where the finding is absent
        findings:                          # by default each one's name in words
          Effusion: pleural effusion       # a phrase, which goes into each template
          Mass: {positive: [a mass in the lung], negative: [a lung without a mass]}     # or whole sentences

    Raises UserError for a file that is no such YAML, and for a finding that is missing or not one of `findings`.
    """
    content = read_yaml(path, ("templates", "findings"))
    templates = content.get("templates", list(TEMPLATES))
    if not isinstance(templates, list) or not templates or not all(isinstance(each, str) for each in templates):
        raise UserError(f"{path}: templates: expected a list of sentences in quotes, such as ['{{}}']")
    given = content.get("findings", {name: in_words(name) for name in findings})
    if not isinstance(given, dict):
        raise UserError(f"{path}: findings: expected a line 'name: phrase' for each, found {type(given).__name__}")
    words = {str(key): value for key, value in given.items()}
    if unknown := [name for name in words if name not in findings]:
        raise UserError(f"{path}: unknown finding {unknown[0]!r}; expected {', '.join(map(repr, findings))}")
    if missing := [name for name in findings if name not in words]:
        raise UserError(f"{path}: finding {missing[0]!r}: missing; {_FORM}")
    try:
        both = [_both(path, name, words[name], templates) for name in findings]
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    return FindingPrompts(*(Prompts(tuple(each[side] for each in both)) for side in (0, 1)))


def _both(path: Path, name: str, words: Any, templates: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The positive and the negative sentences of a finding."""
    if isinstance(words, str) and words.strip():
        own = FindingPrompts.from_templates([words], templates)
        return own.positive.sentences[0], own.negative.sentences[0]
    if not isinstance(words, dict) or words.keys() != {"positive", "negative"}:
        raise UserError(f"{path}: finding {name!r}: {words!r}; {_FORM}")
    for own in words.values():
        if not isinstance(own, list) or not own or not all(isinstance(each, str) and each.strip() for each in own):
            raise UserError(f"{path}: finding {name!r}: {own!r}; {_FORM}")
    return tuple(words["positive"]), tuple(words["negative"])


def write_finding_prompts(path: Path, findings: Sequence[str], prompts: FindingPrompts | None = None) -> None:
    """A file for `read_finding_prompts`, to be edited. prompts: written as whole sentences.

    UserError if it cannot be written.
    """
    head = (
        "# templates: sentences with {} where the finding goes, with 'no' before it where it is absent.\n"
        "# findings: a phrase that goes into them, or positive: [...] and negative: [...], sentences used as they are.\n"
    )
    content: dict[str, Any] = {"templates": list(TEMPLATES), "findings": {name: in_words(name) for name in findings}}
    if prompts is not None:
        pairs = zip(findings, prompts.positive.sentences, prompts.negative.sentences, strict=True)
        own: Mapping[str, Any] = {name: {"positive": list(yes), "negative": list(no)} for name, yes, no in pairs}
        content = {"findings": dict(own)}
    write_text(path, head + yaml_of(path).safe_dump(content, sort_keys=False, allow_unicode=True, width=120))
