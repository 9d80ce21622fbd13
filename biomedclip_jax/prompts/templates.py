"""What a class is called in words: the sentences whose embeddings stand for it, built in or from a user's YAML file."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from biomedclip_jax.config import DEFAULT_TEMPLATE
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text

Aggregation = Literal["mean", "max", "single", "gloria"]

# What BiomedCLIP's paper has for most of its sets, and what gives its numbers. `classify` has the model card's
# sentence.
DEFAULT_TEMPLATES = ("a photo of {}", "{} presented in image")
_ROUNDING = 1e-6  # of unit embeddings of one text in two batches


@dataclass(frozen=True)
class Prompts:
    """The sentences of each class. sentences[j]: at least one of class j, in the order of the data set's classes."""

    sentences: tuple[tuple[str, ...], ...]

    @staticmethod
    def from_templates(classes: Sequence[str], templates: Sequence[str]) -> "Prompts":
        """Each template filled in with each class. UserError for a template without {}."""
        for template in templates:
            if "{}" not in template:
                raise UserError(f"template {template!r}: expected {{}} where the class goes, as in 'a photo of {{}}'")
        return Prompts(tuple(tuple(template.replace("{}", name) for template in templates) for name in classes))

    @staticmethod
    def default(classes: Sequence[str]) -> "Prompts":
        """Prompts for data without published ones: each class's name in words, in `DEFAULT_TEMPLATES`."""
        return Prompts.from_templates([in_words(name) for name in classes], DEFAULT_TEMPLATES)

    @property
    def flat(self) -> list[str]:
        """All sentences, class by class."""
        return [sentence for own in self.sentences for sentence in own]

    def by_class(self) -> list[slice]:
        """Where the sentences of each class are in `flat`."""
        ends = [0]
        for own in self.sentences:
            ends.append(ends[-1] + len(own))
        return [slice(a, b) for a, b in pairwise(ends)]


def label_sentences(labels: Sequence[str] | None, template: str | None = None) -> list[str]:
    """A template, by default `DEFAULT_TEMPLATE`, filled in with each label.

    UserError for labels that `check_labels` refuses, and for a template without {}.
    """
    if labels is None:
        raise UserError("labels: none given; expected at least two to choose between, or learned prompts")
    labels = check_labels(labels)
    template = DEFAULT_TEMPLATE if template is None else template
    if "{}" not in template:
        raise UserError(f"template {template!r}: expected {{}} where the label goes, as in {DEFAULT_TEMPLATE!r}")
    return [template.replace("{}", label) for label in labels]


def check_words(source: str, classes: Sequence[str], advice: str) -> None:
    """UserError for a class whose name is a number, or true or false: a sentence about "1" says nothing to a model.

    advice: what to do.
    """
    if truth := [name for name in classes if name.strip().lower() in ("true", "false")]:
        raise UserError(f"{source}: {truth[0]!r} is no name of a class in words; {advice}")
    if numbers := [name for name in classes if _is_number(name)]:
        raise UserError(f"{source}: {numbers[0]!r} is a number, and no name of a class in words; {advice}")


def _is_number(name: str) -> bool:
    try:
        float(name.replace(",", "."))
    except ValueError:
        return False
    return True


def check_told_apart(source: str, names: Sequence[str], embeddings: np.ndarray, model: str = "this model") -> None:
    """UserError for two classes that are one text to the model: names that its tokenizer makes the same, or cuts alike.

    embeddings: of what stands for each class, float32 [C, E]. One text has one embedding, but for rounding.
    """
    for first in range(len(names) - 1):
        alike = np.abs(embeddings[first + 1 :] - embeddings[first]).max(axis=1) <= _ROUNDING
        if alike.any():
            pair = names[first], names[first + 1 + int(alike.argmax())]
            raise UserError(
                f"{source}: {pair[0]!r} and {pair[1]!r} are one text to {model}: they differ in case, accents or blanks, in "
                "signs that it does not know, or after the last token that it reads; use other words"
            )


def check_labels(labels: Sequence[str], fewest: int = 2) -> list[str]:
    """The labels as a list. UserError unless they are different names in words, two or more (or `fewest`)."""
    from biomedclip_jax.data.processor import as_list  # Pillow, which a training step does without

    labels = as_list(labels, "labels")
    if len(labels) < fewest:
        expected = "at least two to choose between" if fewest > 1 else "at least one"
        raise UserError(f"labels: {len(labels)} given; expected {expected}")
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise UserError(f"labels: {label!r} is not a name; expected words, such as 'chest X-ray'")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UserError(f"labels: {twice!r} is given twice; expected different ones")
    check_words("labels", labels, "expected words, such as 'chest X-ray'")
    return labels


def class_embeddings(text: np.ndarray, prompts: Prompts, *, first: bool = False) -> np.ndarray:
    """Zero-shot weights, float32 [C, E]: of the sentences' unit embeddings the mean of each class, made unit length.

    text: of `prompts.flat` [sentences, E]. first: of the first sentence of each class alone.
    """
    means = np.stack([(text[own][:1] if first else text[own]).mean(axis=0) for own in prompts.by_class()])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def in_words(name: str) -> str:
    """A folder's or a column's name of a class as it is said: "lung_n" is "lung n"."""
    return " ".join(name.replace("_", " ").split())


def read_prompts(path: Path, classes: Sequence[str]) -> Prompts:
    """The prompts of a YAML file that `write_prompts` has begun:

        templates: ["a photo of {}"]       # by default DEFAULT_TEMPLATES
        classes:                           # by default each class's name in words
          lung_aca: lung adenocarcinoma    # a phrase, which goes into each template
          lung_n: [a slide of healthy lung, no tumour in this lung]     # or whole sentences, used as they are

    classes: names, in the order of the labels. Raises UserError for a file that is no such YAML, a template without
    {}, and a class that is missing or not one of `classes`.
    """
    content = read_yaml(path, ("templates", "classes"))
    templates = content.get("templates", list(DEFAULT_TEMPLATES))
    if not isinstance(templates, list) or not templates or not all(isinstance(each, str) for each in templates):
        raise UserError(f"{path}: templates: expected a list of sentences in quotes, such as ['a photo of {{}}']")
    words = _words_of_classes(path, content.get("classes"), classes)
    try:
        sentences = [
            Prompts.from_templates([word], templates).sentences[0] if isinstance(word, str) else tuple(word) for word in words
        ]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Prompts(tuple(sentences))


def read_yaml(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """The content of a YAML file with some of these keys. UserError for a file that is something else."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); expected YAML with prompts"
        ) from error
    content = load_yaml(path, text)
    if not isinstance(content, dict) or not content or not content.keys() <= set(keys):
        found = ", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: expected the keys {' and '.join(map(repr, keys))}, found {found or 'nothing'}")
    return content


def _words_of_classes(path: Path, given: Any, classes: Sequence[str]) -> list[str | list[str]]:
    """What the file has for each class: a phrase, or sentences."""
    if given is None:
        return [in_words(name) for name in classes]
    if not isinstance(given, dict):
        raise UserError(f"{path}: classes: expected a line 'name: phrase' for each, found {type(given).__name__}")
    if odd := [key for key in given if isinstance(key, bool) or key is None]:
        raise UserError(f"{path}: classes: a name that YAML reads as true, false or nothing ({odd[0]}); put it in quotes")
    words = {str(key): value for key, value in given.items()}
    for name in words:
        if name not in classes:
            nearest = difflib.get_close_matches(name, classes, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise UserError(f"{path}: unknown class {name!r}{hint}; expected {', '.join(map(repr, classes))}")
    for name in classes:
        value = words.get(name)
        sentences = value if isinstance(value, list) else [value]
        if not sentences or not all(isinstance(each, str) and each.strip() for each in sentences):
            problem = "missing" if name not in words else f"{value!r} is neither a phrase nor a list of sentences"
            raise UserError(f"{path}: class {name!r}: {problem}; expected words for each class")
    return [words[name] for name in classes]


def write_prompts(path: Path, classes: Sequence[str], templates: Sequence[str] = (), prompts: Prompts | None = None) -> None:
    """A file for `read_prompts`, to be edited. prompts: whole sentences, in place of phrases in templates.

    UserError if it cannot be written.
    """
    chosen = list(templates) or list(DEFAULT_TEMPLATES)
    words: Mapping[str, str | list[str]] = {
        name: in_words(name) if prompts is None else list(prompts.sentences[label]) for label, name in enumerate(classes)
    }
    head = (
        "# templates: sentences with {} where the class goes.\n"
        "# classes: a phrase that goes into them, or a list of whole sentences that are used as they are.\n"
    )
    content = {"templates": chosen, "classes": words} if prompts is None else {"classes": words}
    write_text(path, head + yaml_of(path).safe_dump(content, sort_keys=False, allow_unicode=True, width=120))


def load_yaml(name: object, text: str) -> Any:
    """The content of a YAML file. UserError, which names it and the line, if it is none."""
    yaml = yaml_of(name)
    try:
        _check_keys(name, yaml.compose(text, yaml.SafeLoader))
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise UserError(f"{name}{line}: not YAML ({problem}); put texts with : or {{}} in quotes") from error


def _check_keys(name: object, top: Any) -> None:
    """UserError for a key that is there twice, of which PyYAML keeps the last. top: the node of the whole file."""
    waiting, seen = [top], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen or not isinstance(node.value, list):
            continue
        seen.add(id(node))
        if node.id == "sequence":
            waiting += node.value
            continue
        keys = [(key.tag, key.value) for key, _ in node.value if key.id == "scalar"]
        if twice := next((key for key in node.value if keys.count((key[0].tag, key[0].value)) > 1), None):
            line = [key for key, _ in node.value if key.value == twice[0].value][1].start_mark.line + 1
            raise UserError(f"{name}, line {line}: the key {twice[0].value!r} is there twice; leave one")
        waiting += [value for _, value in node.value]


def yaml_of(name: object) -> Any:
    """The module `yaml`, imported when a file needs it. UserError, which names the file, where it is not installed."""
    try:
        import yaml
    except ImportError:
        raise UserError(f"{name}: reading YAML needs pyyaml: pip install 'biomedclip_jax[evaluate]'") from None
    return yaml
