"""Fields given on the command line: every kind of value, every mistake, every field of every config."""

import dataclasses
import itertools
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from biomedclip_jax.config import TrainConfig, to_json
from biomedclip_jax.config.files import KINDS, load_config
from biomedclip_jax.config.overrides import describe, field_texts, fields, override
from biomedclip_jax.errors import UserError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.py"))
EVERY_CONFIG = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return load_config(next(path for path in CONFIGS if path.stem == "quickstart"))


def values(config: Any) -> dict[str, Any]:
    return {field.path: field.value for field in fields(config)}


# --- what works ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        ("--seed 3", "seed", 3),
        ("--seed -3", "seed", -3),
        ("--seed 1 --seed 2", "seed", 2),
        ("--stages.0.batch-size 64", "stages.0.batch_size", 64),
        ("--stages.1.microbatch 32", "stages.1.microbatch", 32),
        ("--stages.1.microbatch None", "stages.1.microbatch", None),
        ("--optimizer.learning-rate 1e-4", "optimizer.learning_rate", 1e-4),
        ("--optimizer.learning_rate 1", "optimizer.learning_rate", 1.0),
        ("--optimizer.learning-rate=1e-4", "optimizer.learning_rate", 1e-4),
        ("--optimizer.clip-norm None", "optimizer.clip_norm", None),
        ("--optimizer.clip-norm 2", "optimizer.clip_norm", 2.0),
        ("--model.init-logit-bias -1e1", "model.init_logit_bias", -10.0),
        ("--model.text.dropout 0.2", "model.text.dropout", 0.2),
        ("--model.image.norm-pre True", "model.image.norm_pre", True),
        ("--model.image.position-on-prefix False", "model.image.position_on_prefix", False),
        ("--compute.dtype bfloat16", "compute.dtype", "bfloat16"),
        ("--data.train mine.csv", "data.train", "mine.csv"),
        ("--data.train=a=b.csv", "data.train", "a=b.csv"),
        ("--data.template='--a {}'", "data.template", "--a {}"),
        ("--data.held-out None", "data.held_out", None),
        ("--data.held-out none", "data.held_out", "none"),
        ("--data.held-out=", "data.held_out", ""),
        ("--name None", "name", "None"),
        ("--data.crop-scale 0.5 1.0", "data.crop_scale", (0.5, 1.0)),
        ("--data.crop-scale=0.5 0.75", "data.crop_scale", (0.5, 0.75)),
        ("--stages.0.trainable text '*_head'", "stages.0.trainable", ("text", "*_head")),
        ("--optimizer.groups image 0.1 text 2", "optimizer.groups", (("image", 0.1), ("text", 2.0))),
    ],
)
def test_every_kind_of_value(config: TrainConfig, arguments: str, path: str, value: Any) -> None:
    """The field gets the value, in the right type; all the others stay."""
    changed = override(config, shlex.split(arguments))
    assert repr(values(changed)[path]) == repr(value)
    assert values(changed) == values(config) | {path: value}


def test_values_that_must_fit_are_checked_together(config: TrainConfig) -> None:
    """Either alone is refused by the config, in its own words; in any order both are right."""
    arguments = ["--model.image.image-size", "32"], ["--preprocess.image-size", "32"]
    for alone in arguments:
        with pytest.raises(UserError, match=r"^PreprocessConfig\.image_size = \d+: expected model\.image\.image_size = \d+$"):
            override(config, alone)
    for first, second in (arguments, arguments[::-1]):
        changed = override(config, [*first, *second])
        assert changed.model.image.image_size == changed.preprocess.image_size == 32
    changed = override(config, ["--stages.0.epochs", "2", "--stages.0.steps", "None"])
    assert (changed.stages[0].epochs, changed.stages[0].steps) == (2.0, None)


@EVERY_CONFIG
def test_every_field_takes_its_own_value(path: Path) -> None:
    """One by one and all at once; and none is left out, counted in the JSON that a run folder keeps."""
    config = load_config(path)
    for field in fields(config):
        assert override(config, [field.flag, *field.words]) == config, field.flag
    everything = [word for field in fields(config) for word in (field.flag, *field.words)]
    assert to_json(override(config, everything)) == to_json(config)

    def leaves(value: Any) -> int:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return sum(map(leaves, value))
        return sum(leaves(v) for name, v in value.items() if name != "kind") if isinstance(value, dict) else 1

    parts = [
        config.adaptation.image,
        config.adaptation.text,
        config.model.answering,
        *(stage.optimizer for stage in config.stages),
    ]
    absent = parts.count(None)
    assert len(fields(config)) == leaves(json.loads(to_json(config))) - absent, (
        "all but what is None where there could be fields"
    )


@EVERY_CONFIG
def test_every_config_lists_its_flags(path: Path) -> None:
    """Each on a line of its own with its value, in a form that a shell gives back as it was."""
    config = load_config(path)
    lines = [line for line in describe(config).splitlines() if line.startswith("  --")]
    assert len(lines) == len(fields(config)) > 60
    for line, field in zip(lines, fields(config), strict=True):
        assert line.startswith(f"  {shlex.join([field.flag, *field.words])} "), line


@EVERY_CONFIG
def test_every_flag_says_what_it_does(path: Path) -> None:
    """In a sentence, which stands below the flag."""
    config = load_config(path)
    entries = helps(config)
    for field in fields(config):
        assert len(field.text.split()) >= 4 and field.text.endswith("."), field.flag
        assert entries[field.flag].endswith(f") {field.text}"), field.flag


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_field_of_a_config_has_a_docstring(kind: type) -> None:
    assert list(field_texts(kind)) == [field.name for field in dataclasses.fields(kind)]


def helps(config: Any) -> dict[str, str]:
    """What is written of each flag, in one line."""
    entries: dict[str, str] = {}
    for line in describe(config).splitlines():
        if line.startswith("  --"):
            entries[flag := line.split()[0]] = " ".join(line.split())
        elif line.startswith("      "):
            entries[flag] += f" {line.strip()}"
    return entries


def test_the_list_says_types_defaults_and_meanings(config: TrainConfig) -> None:
    entries = helps(config)
    for line in (
        "--seed 0 (a whole number)",
        "--data.crop-scale 0.6 1.0 (a number, 2 times; default: 0.9 1.0)",
        "--optimizer.clip-norm 1.0 (a number or None; default: None)",
        "--optimizer.schedule cosine (one of cosine, linear, constant)",
        "--optimizer.groups (a text and a number, any number of times)",
        "--model.image.class-token True (True or False)",
    ):
        assert f"{entries[line.split()[0]]} ".startswith(f"{line} ")
    assert (
        entries["--model.image.patch-size"]
        == "--model.image.patch-size 8 (a whole number; default: 16) Side of a patch in pixels."
    )


def test_the_list_is_ordered_by_dataclass(config: TrainConfig) -> None:
    """A dataclass's own fields stay together, below a line that says what it is; what has no flag is named at the end."""
    owners = [field.path.rpartition(".")[0] for field in fields(config)]
    assert len(list(itertools.groupby(owners))) == len(set(owners))
    lines = describe(config).splitlines()
    headings = [line.partition(" (")[0] for line in lines if line and not line.startswith(" ") and "Config): " in line]
    assert [owner for owner in owners if owner in headings] and set(headings) <= set(owners)
    assert "Only in the config file: stages.0.optimizer, " in describe(config)


# --- what is wrong -------------------------------------------------------------------------------------------------


FIELDS = "has fields of its own; give one of them, such as --{}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--optimizer.learnig-rate 1", "no such field of the config; did you mean --optimizer.learning-rate?"),
        ("--learning-rate 1", "no such field of the config; did you mean --optimizer.learning-rate?"),
        ("--droput 1", "no such field of the config; did you mean --model.text.dropout?"),
        ("--width 1", "no such field of the config; did you mean --model.image.width or --model.text.width?"),
        ("--stages.0.batchsize 1", "no such field of the config; did you mean --stages.0.batch-size?"),
        ("--max-setps 1", "no such field of the config; did you mean --max-steps?"),
        ("--xyzzy 1", "no such field of the config; CONFIG --help lists them all"),
        ("-- 1", "no such field of the config; CONFIG --help lists them all"),
        ("--stages.3.batch-size 1", "the config has 3 stages, counted from 0"),
        ("--stages.3 1", "the config has 3 stages, counted from 0"),
        ("--stages 1", "has fields of its own; give one of them, such as --stages.0.batch-size"),
        (
            "--model.text 1",
            "is a BertConfig, which only the config file can change; it " + FIELDS.format("model.text.vocab-size"),
        ),
        (
            "--stages.0.loss sigmoid",
            "is a Softmax, which only the config file can change; it " + FIELDS.format("stages.0.loss.directions"),
        ),
        (
            "--stages.0.loss.kind Sigmoid",
            "is a Softmax, which only the config file can change; it " + FIELDS.format("stages.0.loss.directions"),
        ),
        ("--seed.x 1", "no such field of the config; did you mean --seed?"),
    ],
)
def test_an_unknown_flag(config: TrainConfig, arguments: str, message: str) -> None:
    flag = arguments.split()[0]
    with pytest.raises(UserError) as caught:
        override(config, ["--run.log-every", "7", *arguments.split()], other_flags=["--max-steps"])
    assert str(caught.value) == f"{flag}: {message}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--seed", "a whole number"),
        ("--seed 1.5", "a whole number"),
        ("--seed 1 2", "a whole number"),
        ("--seed ''", "a whole number"),
        ("--stages.0.batch-size abc", "a whole number"),
        ("--stages.0.batch-size None", "a whole number"),
        ("--stages.0.microbatch 1.5", "a whole number or None"),
        ("--optimizer.learning-rate fast", "a number"),
        ("--optimizer.learning-rate nan", "a number"),
        ("--optimizer.clip-norm inf", "a number or None"),
        ("--model.image.norm-pre", "True or False"),
        ("--model.image.norm-pre 1", "True or False"),
        ("--compute.dtype float16", "one of float32, bfloat16"),
        ("--data.template a photo", "a text"),
        ("--data.tokenizer", "a text"),
        ("--data.crop-scale 0.5", "a number, 2 times"),
        ("--data.crop-scale 0.5 0.6 0.7", "a number, 2 times"),
        ("--optimizer.groups image", "a text and a number, any number of times"),
        ("--optimizer.groups image x", "a text and a number, any number of times"),
    ],
)
def test_a_value_of_the_wrong_type(config: TrainConfig, arguments: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        override(config, shlex.split(arguments))
    assert str(caught.value) == f"{arguments}: expected {expected}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--stages.0.batch-size 0", "Stage.batch_size = 0: expected a whole number above 0"),
        ("--stages.1.microbatch 3", "Stage.microbatch = 3: expected a divisor of batch_size = 256"),
        ("--stages.0.trainable", "Stage.trainable = (): expected at least one parameter path"),
        (
            "--data.crop-scale 1 0.5",
            "DataConfig.crop_scale = (1.0, 0.5): expected two shares of the area, 0 < low <= high <= 1",
        ),
        ("--model.text.heads 5", "BertConfig.heads = 5: expected a divisor of width = 128"),
    ],
)
def test_a_value_that_the_config_refuses(config: TrainConfig, arguments: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        override(config, arguments.split())
    assert str(caught.value) == message


def test_a_value_without_a_flag(config: TrainConfig) -> None:
    """And two dashes always begin a flag; a value of that form is given after `=`, tested above."""
    with pytest.raises(UserError, match=r"^--data\.template: expected a text$"):
        override(config, ["--data.template", "--a {}"])
    with pytest.raises(UserError, match=r"^-seed: expected a flag, such as --seed 3$"):
        override(config, ["-seed", "3"])


# --- kinds of fields that configs may have one day -----------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    size: Literal[1, 2] = 1


@dataclass(frozen=True)
class Whole:
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    names: tuple[str, ...] | None = None
    amount: int | float = 1
    """How much there is."""
    make: Callable[[], None] | None = None


def test_other_kinds() -> None:
    whole = Whole()
    assert [field.path for field in fields(whole)] == ["names", "amount"]
    for arguments, names in (("None", None), ("a None", ("a", "None")), ("", ())):
        assert override(Whole(names=("x",)), ["--names", *arguments.split()]).names == names
    assert override(whole, ["--amount", "2"]).amount == 2 and override(whole, ["--amount", "2.5"]).amount == 2.5
    for flag in ("--part", "--parts", "--make"):
        with pytest.raises(UserError, match=f"^{flag}: cannot be given on the command line; set {flag[2:]} in the config"):
            override(whole, [flag, "None"])
    assert override(Whole(part=Part()), ["--part.size", "2"]).part == Part(size=2)
    assert override(Whole(parts=(Part(), Part())), ["--parts.1.size", "2"]).parts == (Part(), Part(size=2))
    with pytest.raises(UserError, match=r"^--part\.size 3: expected one of 1, 2$"):
        override(Whole(part=Part()), ["--part.size", "3"])
