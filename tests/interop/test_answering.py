"""What QCR starts from: word vectors, their smoothed copy, and the two networks' files, in the layouts that they have."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from flax.traverse_util import flatten_dict
from helpers.qcr_reference import AutoEncoder, SmallNet
from helpers.tiny import MODEL

from biomedclip_jax.config import CLIPConfig, ComputeConfig, QCRConfig
from biomedclip_jax.data.questions.words import QuestionWords
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.answering import read_autoencoder, read_maml, starting_answering
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.answering.qcr.model import QCR

WORDS = ("is", "this", "heart", "'s", "lung", "seen")
QUESTIONS = ("Is this heart's?", "is this is", "lung", "seen... this seen unknown")
ANSWERING = QCRConfig(answers=("yes", "heart"), closed_answers=1, words=WORDS, question_length=4, word_width=3, width=16)
CONFIG = dataclasses.replace(MODEL, answering=ANSWERING)
GLOVE = "the 1 1 1\nthis 1 0 0.5\n. . . 9 9 9\nheart -1 2 0\nis 0 0 1\nheart 7 7 7\nis of 3 3 3\nseen 1e-1 0 0\n"
IDS = QuestionWords(WORDS, 4).whole(QUESTIONS)


def _changed(**changes: Any) -> CLIPConfig:
    return dataclasses.replace(CONFIG, answering=dataclasses.replace(ANSWERING, **changes))


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    """Of random kernels, and normalisations that change nothing."""
    rng = np.random.default_rng(0)

    def drawn(path: Any, x: Any) -> np.ndarray:
        plain = {"mean": 0, "bias": 0, "variance": 1, "scale": 1}.get(path[-1].key)
        return (rng.normal(size=x.shape) if plain is None else np.full(x.shape, plain)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(drawn, abstract_model(CONFIG)[1])


def _flat(params: dict[str, Any]) -> dict[str, Any]:
    return flatten_dict(params["answering"], sep="/")


def _qcr(params: dict[str, Any]) -> QCR:
    return nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: QCR(CONFIG, ComputeConfig(), nnx.Rngs(0)))), params["answering"])


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE)
    return path


def test_word_vectors_start_as_those_of_the_file(params: dict[str, Any], glove: Path) -> None:
    before = {name: np.array(x) for name, x in _flat(params).items()}
    found, said = starting_answering(_changed(glove=str(glove)), params, IDS)
    after = _flat(found)
    expected = np.array([[0, 0, 1], [1, 0, 0.5], [-1, 2, 0], [0, 0, 0], [0, 0, 0], [0.1, 0, 0]], np.float32)
    tables = {f"{part}/words/table" for part in ("question", "modulation", "types")}
    for name in tables:
        np.testing.assert_array_equal(after[name], expected)
    for name in before.keys() - tables - {"question/smoothed/table"}:
        np.testing.assert_array_equal(after[name], before[name])
    np.testing.assert_array_equal(_flat(params)["question/words/table"], before["question/words/table"])  # as it was
    assert said == [f"{glove}: vectors of 4 of 6 words; the others start as zeros"]
    # the copy, by hand. Occurrences: is 3, this 3, heart 1, 's 1, lung 1, seen 2
    is_, this, heart, _, _, seen = expected
    both = [
        (3 / 3 * this + 1 * heart + 1 * 0 + 2 / 3 * is_) / (3 / 3 + 1 + 1 + 2 / 3),  # beside itself, both ways, in "is this is"
        (3 / 3 * is_ + 1 * heart + 1 * 0 + 2 / 2 * seen) / (3 / 3 + 1 + 1 + 2 / 2),
        (is_ / 3 + this / 3 + 0) / (1 / 3 + 1 / 3 + 1),
        (is_ / 3 + this / 3 + heart) / (1 / 3 + 1 / 3 + 1),
        0 * is_,  # always alone
        (2 / 3 * this + 2 / 2 * seen) / (2 / 3 + 2 / 2),
    ]
    np.testing.assert_allclose(after["question/smoothed/table"], both, atol=1e-6)


def test_the_copy_is_smoothed_without_a_file_too(params: dict[str, Any]) -> None:
    found, said = starting_answering(CONFIG, params, IDS)
    table = np.array(_flat(params)["question/words/table"])
    np.testing.assert_array_equal(_flat(found)["question/words/table"], table)
    np.testing.assert_allclose(_flat(found)["question/smoothed/table"][5], (2 / 3 * table[1] + table[5]) / (5 / 3), atol=1e-6)
    assert said == []
    assert starting_answering(MODEL, params, IDS) == (params, [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("the 1 2 3 4\nis 1 2 3 4\n", "line 1: 4 numbers after the word, expected 3 (QCRConfig.word_width)"),
        ("4 3\nis 1 2 3\n", "line 1: 1 numbers after the word"),
        ("the 1 2 3\nis 1 2\n", "line 2: 2 numbers, expected 3"),
        ("the 1 2 3\nis 1 x 3\n", "line 2: expected a word and numbers"),
        ("the 1 2 3\nis 1 nan 3\n", "line 2: a number that is not finite"),
        ("the 1 2 3\n", "none of the 6 words"),
        (None, "no such file"),
    ],
)
def test_word_vectors_that_do_not_fit_are_refused(params: dict[str, Any], glove: Path, text: str | None, told: str) -> None:
    glove.write_text(text) if text else glove.unlink()
    with pytest.raises(UserError) as error:
        starting_answering(_changed(glove=str(glove)), params, IDS)
    assert f"{glove}: {told}" in str(error.value) and "\n" not in str(error.value)


def test_both_networks_see_what_pytorchs_see(params: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    small, auto = SmallNet(), AutoEncoder()
    maml, encoder = tmp_path / "pretrained_maml.weights", tmp_path / "pretrained_ae.pth"
    state = {name: x.numpy() for name, x in small.state_dict().items()}
    content = {f"conv{n}": state[f"conv{n}.weight"].transpose(2, 3, 1, 0) for n in range(1, 5)}
    maml.write_bytes(pickle.dumps(content | {f"b{n}": state[f"conv{n}.bias"] for n in range(1, 5)}, protocol=3))
    torch.save(auto.state_dict(), encoder, _use_new_zipfile_serialization=False)  # as the published file
    found, said = starting_answering(_changed(maml=str(maml), autoencoder=str(encoder)), params, IDS)
    assert said == [f"{maml}: weights of maml", f"{encoder}: weights of autoencoder"]
    for n in range(1, 5):  # the file has no statistics; ours start as PyTorch's do
        norm: Any = getattr(small, f"norm{n}")
        norm.reset_running_stats()
    pixels = np.random.default_rng(0).random((2, 84, 84, 1), np.float32)
    larger = np.random.default_rng(1).random((2, 128, 128, 1), np.float32)
    qcr = _qcr(found)
    with torch.no_grad():
        small.eval()
        theirs = small(torch.from_numpy(pixels.transpose(0, 3, 1, 2)))
        code = auto.encoded(torch.from_numpy(larger.transpose(0, 3, 1, 2)))
        image = auto.decoded(code)
    np.testing.assert_allclose(qcr.maml(jnp.array(pixels)), theirs, atol=1e-5)
    ours = qcr.autoencoder.encoded(jnp.array(larger))
    np.testing.assert_allclose(ours, code.permute(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(qcr.autoencoder.decoded(ours), image.permute(0, 2, 3, 1), atol=1e-5)


def test_files_of_other_contents_are_refused(params: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "file.weights"
    whole = {f"conv{n}": np.zeros((3, 3, 1 if n == 1 else 64, 64), np.float32) for n in range(1, 5)}
    whole |= {f"b{n}": np.zeros(64, np.float32) for n in range(1, 5)}

    def refused(content: Any, told: str) -> None:
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(UserError) as error:
            starting_answering(_changed(maml=str(path)), params, IDS)
        assert str(error.value).startswith(f"{path}: {told}") and "\n" not in str(error.value)

    refused({name: x for name, x in whole.items() if name != "b3"}, "b3 is missing")
    refused(whole | {"w5": whole["b1"]}, "'w5' has no place")
    refused(whole | {"conv2": np.zeros((5, 5, 64, 64), np.float32)}, "maml/conv2/kernel has the shape (5, 5, 64, 64)")
    refused(whole | {"b1": np.full(64, np.nan, np.float32)}, "maml/conv1/bias has numbers that are not finite")
    refused(whole | {"b1": np.zeros(64, int)}, "b1 is int64")
    refused([1], "expected a dict of arrays, found list")
    refused({"conv1": Path("x")}, "not a pickled dict of arrays (it holds pathlib")
    with pytest.raises(UserError, match="no such file; expected pretrained_maml"):
        read_maml(tmp_path / "none")
    with pytest.raises(UserError, match="no such file; expected pretrained_ae"):
        read_autoencoder(tmp_path / "none")
    torch.save({"conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"conv2\.weight is missing"):
        read_autoencoder(path)
    with pytest.raises(UserError, match=r"QCRConfig.maml = .*does not use it"):
        starting_answering(_changed(vision=("clip", "autoencoder"), maml=str(path)), params, IDS)
