"""CLEFT's second stage on a causal text tower: the same text features as PEFT's prompt tuning, and training that helps."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cleft_reference import PAD, reference_model, with_context, write
from helpers.few_shot_task import CLASSES, make_part
from helpers.prompt_reference import unit_rows

from biomedclip_jax import UserError
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.probe.methods import FewShot
from biomedclip_jax.evaluation.prompt_learning.coop import ContextPrompts
from biomedclip_jax.evaluation.prompt_learning.training import Recipe
from biomedclip_jax.prompts.layout import ContextConfig, initial_context, make_layout
from biomedclip_jax.prompts.learned import LearnedPrompts, load_prompts
from biomedclip_jax.prompts.templates import Prompts, class_embeddings

WORDS = ("X", *dict.fromkeys(" ".join(["a photo of this is", *CLASSES]).split()))
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers for it

CONTEXT = ContextConfig(start="this is a photo of", vectors=30)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return reference_model("lora")


@pytest.fixture(scope="module")
def candidate(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = write(theirs, tmp_path_factory.mktemp("cleft"))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)} | {"<|endoftext|>": PAD}, "<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path.parent / "tokenizer.json"))
    return Candidate(str(path))


def test_vectors_stand_before_the_name_and_start_from_the_phrase_said_again(candidate: Candidate) -> None:
    clip = candidate.clip
    layout = make_layout(CLASSES, CONTEXT, clip.processor.tokenizer)
    assert layout.tokens.shape == (len(CLASSES), 30 + 64)
    assert layout.slots[:, :30].tolist() == [list(range(30))] * len(CLASSES) and (layout.slots[:, 30:] == -1).all()
    assert [WORDS[i] for i in layout.tokens[1, 30:35]] == CLASSES[1].split() and (layout.tokens[1, 35:] == PAD).all()
    table = np.asarray(clip.params["text"]["word"])
    start = initial_context(CONTEXT, len(CLASSES), clip.processor.tokenizer, table, np.random.default_rng(0))
    said = ["this", "is", "a", "photo", "of"] * 6
    assert np.array_equal(start, table[[WORDS.index(word) for word in said]])
    with pytest.raises(UserError, match="reads from left to right"):
        make_layout(CLASSES, ContextConfig(position="front"), clip.processor.tokenizer)
    with pytest.raises(UserError, match="this text tower has 128 positions"):
        LearnedPrompts("coop", CLASSES, ContextConfig(start="a", vectors=65), {}).text_embeddings(clip)


@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time:UserWarning")  # as CLEFT does
def test_text_features_are_those_of_prompt_tuning(candidate: Candidate, tmp_path: Path) -> None:
    """By vectors at hand, and by those of a checkpoint, which has no names of its own."""
    import torch

    tuned = with_context(reference_model("lora"))
    encoder = tuned.text_encoder_q
    context = encoder.model.prompt_encoder.default.embedding.weight.detach().numpy()
    learned = LearnedPrompts("coop", CLASSES, CONTEXT, {"context": context})
    tokens = make_layout(CLASSES, CONTEXT, candidate.clip.processor.tokenizer).tokens[:, 30:]
    lengths = (tokens != PAD).sum(axis=1)
    mask = torch.from_numpy(np.arange(64) < lengths[:, None]).long()
    with torch.no_grad():
        hidden = encoder.model(input_ids=torch.from_numpy(tokens).long(), attention_mask=mask, return_dict=True).logits
        pooled = torch.stack([row[n - 64] for row, n in zip(hidden, lengths.tolist(), strict=True)])
        expected = torch.nn.functional.normalize(encoder.global_embed(pooled), dim=-1).numpy()
    assert np.abs(learned.text_embeddings(candidate.clip) - expected).max() <= 1e-5

    path = write(tuned, tmp_path)
    shutil.copy(Path(candidate.source).with_name("tokenizer.json"), tmp_path)
    second = Candidate(str(path)).clip
    read = load_prompts(path, second)
    assert np.abs(read.with_classes(CLASSES).text_embeddings(second) - expected).max() <= 1e-5
    with pytest.raises(UserError, match="labels: expected two or more names, because these prompts have none"):
        second.classify([], prompts=read)
    with pytest.raises(UserError, match="no such file"):
        load_prompts(tmp_path / "other.ckpt", second)


def test_training_improves_on_the_phrase_it_started_from(candidate: Candidate, tmp_path: Path) -> None:
    rng, embeddings = np.random.default_rng(0), Embeddings(None)
    directions = unit_rows(rng, len(CLASSES), 24)
    given, test = make_part(rng, 8, directions, 0.3), make_part(rng, 10, directions, 0.3)
    prompts = Prompts.from_templates(CLASSES, ["this is a photo of {}"])
    text = class_embeddings(embeddings.texts(candidate, prompts.flat, "prompts"), prompts)
    task = FewShot(candidate, embeddings, prompts, text, given, given, given.subset(np.arange(0)), test, 0)
    method = ContextPrompts(CONTEXT, Recipe(epochs=60, batch_size=32, learning_rate=0.05))
    assert method.name == "context-prompts"
    before = ((test.unit @ text.T).argmax(axis=1) == test.labels).mean()
    prediction = method(task)
    after = (prediction.probabilities.argmax(axis=1) == test.labels).mean()
    assert after > before + 0.2, (before, after)

    learned = method.learn(task)
    learned.save(tmp_path / "prompts.safetensors", candidate.clip)
    again = load_prompts(tmp_path / "prompts.safetensors", candidate.clip)
    assert (again.method, again.context) == ("context-prompts", CONTEXT)
    assert np.array_equal(again.arrays["context"], learned.arrays["context"])
