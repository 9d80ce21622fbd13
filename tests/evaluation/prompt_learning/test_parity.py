"""Losses and gradients of the prompt methods against PyTorch, on a small open_clip model with random weights."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from helpers.prompt_reference import TorchPrompts, unit_rows
from helpers.reference import open_clip_model

import biomedclip_jax as bc
from biomedclip_jax.evaluation.prompt_learning.biomedcoop import BiomedCoOpLoss, chosen_sentences
from biomedclip_jax.evaluation.prompt_learning.cocoop import CoCoOpLoss, initial_meta_net
from biomedclip_jax.evaluation.prompt_learning.coop import CoOpLoss
from biomedclip_jax.evaluation.prompt_learning.kgcoop import KgCoOpLoss
from biomedclip_jax.evaluation.prompt_learning.prograd import ProGradDescent
from biomedclip_jax.evaluation.prompt_learning.training import Recipe, batches, fit
from biomedclip_jax.prompts.layout import ContextConfig, Layout
from biomedclip_jax.prompts.learned import LearnedPrompts, encode_prompts, layout_for

VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 32}
NAMES = ("chest ray", "tumor cells of the lung", "brain", "b-12 photo")
CONTEXT = ContextConfig(3)


class Case(NamedTuple):
    reference: Any
    folder: str
    clip: bc.Pretrained
    images: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("model")
    reference = open_clip_model(folder, VISION, TEXT, bert={})
    rng = np.random.default_rng(0)
    return Case(reference, str(folder), bc.from_pretrained(folder), unit_rows(rng, 6, 32), rng.integers(0, 4, 6))


def frozen(case: Case, context: ContextConfig) -> dict[str, Any]:
    return {"params": case.clip.params, **layout_for(case.clip, NAMES, context)._asdict()}


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.3, shape).astype(np.float32)


def ours(objective: Any, trained: dict, known: dict, case: Case) -> tuple[float, dict[str, np.ndarray]]:
    weights = np.ones(len(case.labels), np.float32)
    run = jax.jit(jax.value_and_grad(objective))
    return run(trained, known, case.images, case.labels.astype(np.int32), weights)


def agree(found: Any, expected: Any, bound: float = 1e-5) -> None:
    """Within `bound`; and within 1e-4 of the largest number, because some gradients are small."""
    found, expected = np.asarray(found), expected.detach().numpy() if hasattr(expected, "detach") else np.asarray(expected)
    assert np.abs(found - expected).max() <= min(bound, 1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("own", [False, True])
def test_coop(case: Case, position: Any, own: bool) -> None:
    import torch
    import torch.nn.functional as F

    context = ContextConfig(3, class_specific=own, position=position)
    vectors = drawn(4, 3, 64) if own else drawn(3, 64)
    loss, gradient = ours(CoOpLoss(case.clip.graph), {"context": vectors}, frozen(case, context), case)

    torch_prompts = TorchPrompts(case.reference, case.folder, NAMES, position)
    theirs = torch.tensor(vectors, requires_grad=True)
    logits = torch_prompts.logits(torch.tensor(case.images), theirs)
    expected = F.cross_entropy(logits, torch.tensor(case.labels))
    expected.backward()
    agree(loss, expected)
    agree(gradient["context"], theirs.grad)
    scores = LearnedPrompts("coop", NAMES, context, {"context": vectors}).scores(case.clip, case.images)
    agree(scores, logits)


def test_cocoop(case: Case) -> None:
    import torch
    import torch.nn.functional as F

    arrays = {"context": drawn(3, 64), **initial_meta_net(32, 64, np.random.default_rng(2))}
    assert arrays["hidden_kernel"].shape == (32, 2) and arrays["out_kernel"].shape == (2, 64)
    loss, gradient = ours(CoCoOpLoss(case.clip.graph), arrays, frozen(case, CONTEXT), case)

    torch_prompts = TorchPrompts(case.reference, case.folder, NAMES)
    net = torch.nn.Sequential(torch.nn.Linear(32, 2), torch.nn.ReLU(), torch.nn.Linear(2, 64))
    spelled = {
        "0.weight": arrays["hidden_kernel"].T,
        "0.bias": arrays["hidden_bias"],
        "2.weight": arrays["out_kernel"].T,
        "2.bias": arrays["out_bias"],
    }
    net.load_state_dict({name: torch.tensor(array) for name, array in spelled.items()})
    shared = torch.tensor(arrays["context"], requires_grad=True)
    images = torch.tensor(case.images)
    rows = [torch_prompts.logits(image[None], shared + shift) for image, shift in zip(images, net(images), strict=True)]
    logits = torch.cat(rows)
    expected = F.cross_entropy(logits, torch.tensor(case.labels))
    expected.backward()
    agree(loss, expected)
    agree(gradient["context"], shared.grad)
    for name, theirs in (("hidden_kernel", net[0].weight.grad.T), ("hidden_bias", net[0].bias.grad)):
        agree(gradient[name], theirs)
    for name, theirs in (("out_kernel", net[2].weight.grad.T), ("out_bias", net[2].bias.grad)):
        agree(gradient[name], theirs)
    many = np.concatenate([case.images] * 9)  # more than go through the tower at a time
    scores = LearnedPrompts("cocoop", NAMES, CONTEXT, arrays).scores(case.clip, many)
    agree(scores, torch.cat([logits] * 9))


def published_choice(scores: Any, threshold: float) -> Any:
    """As the authors write it: by median and median absolute deviation, standardised once more."""
    import torch

    middle = torch.median(scores)
    z = (scores - middle) / torch.median(torch.abs(scores - middle))
    return torch.abs((z - z.mean()) / z.std()) <= threshold


def test_biomedcoop(case: Case) -> None:
    import torch
    import torch.nn.functional as F

    vectors, sentences = drawn(3, 64), unit_rows(np.random.default_rng(3), 9, 4, 32)
    objective = BiomedCoOpLoss(case.clip.graph, sccm=0.7, kdsp=0.4, threshold=1.2)
    loss, gradient = ours(objective, {"context": vectors}, frozen(case, CONTEXT) | {"sentences": sentences}, case)

    torch_prompts = TorchPrompts(case.reference, case.folder, NAMES)
    theirs, images, told = torch.tensor(vectors, requires_grad=True), torch.tensor(case.images), torch.tensor(sentences)
    logits = torch_prompts.logits(images, theirs)
    scale = torch_prompts.image_scale
    scores = torch.stack([(scale * images @ sentence.T).max(dim=1).values.mean() for sentence in told])
    chosen = published_choice(scores, 1.2)
    assert 0 < chosen.sum() < 9, "the threshold has to make a difference here"
    teacher = scale * images @ F.normalize(told[chosen].mean(dim=0), dim=-1).T
    student, target = F.log_softmax(logits, dim=1), F.log_softmax(teacher, dim=1)
    divergence = F.kl_div(student, target, reduction="sum", log_target=True) / logits.numel()
    distance = F.mse_loss(torch_prompts.texts(theirs), F.normalize(told.mean(dim=0), dim=-1))
    expected = F.cross_entropy(logits, torch.tensor(case.labels)) + 0.7 * distance + 0.4 * divergence
    expected.backward()
    agree(loss, expected)
    agree(gradient["context"], theirs.grad)


def test_kgcoop(case: Case) -> None:
    import torch
    import torch.nn.functional as F

    vectors, zero_shot = drawn(3, 64), unit_rows(np.random.default_rng(3), 4, 32)
    objective = KgCoOpLoss(case.clip.graph, weight=8.0)
    loss, gradient = ours(objective, {"context": vectors}, frozen(case, CONTEXT) | {"zero_shot": zero_shot}, case)

    torch_prompts = TorchPrompts(case.reference, case.folder, NAMES)
    theirs, images = torch.tensor(vectors, requires_grad=True), torch.tensor(case.images)
    near = F.cosine_similarity(torch_prompts.texts(theirs), torch.tensor(zero_shot), dim=1, eps=1e-7)
    plain = F.cross_entropy(torch_prompts.logits(images, theirs), torch.tensor(case.labels))
    expected = plain + 8.0 * (1.0 - near.mean())
    assert abs(expected - plain) > 0.1, "the weight has to make a difference here"
    expected.backward()
    agree(loss, expected)
    agree(gradient["context"], theirs.grad)


def teacher_of(case: Case, sign: int) -> np.ndarray:
    """Unit embeddings [C, E]: 1: each class is where its images are, -1: as far away as can be."""
    means = np.stack([case.images[case.labels == i].sum(axis=0) for i in range(4)]) + 1e-3
    return (sign * means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def torch_prograd(torch_prompts: TorchPrompts, vectors: Any, rows: Any, zero_shot: Any, weight: float, temperature: float):
    """(cross-entropy, its gradient, the teacher's, what is followed), two whole backward passes. rows: images, labels."""
    import torch
    import torch.nn.functional as F

    theirs, (images, labels) = torch.tensor(vectors, requires_grad=True), map(torch.tensor, rows)
    logits = torch_prompts.logits(images, theirs)
    teacher = torch_prompts.image_scale * images @ torch.tensor(zero_shot).T
    told = F.softmax(teacher / temperature, dim=-1)
    apart = (-told * F.log_softmax(logits / temperature, dim=-1) * temperature**2).sum(dim=1).mean()
    entropy = F.cross_entropy(logits, labels)
    kept, learned = (torch.autograd.grad(each, theirs, retain_graph=True)[0] for each in (apart, entropy))
    unit = kept / torch.linalg.norm(kept)
    against = torch.dot(learned.flatten(), unit.flatten())
    return entropy.detach(), learned, kept, learned - weight * against * unit if against < 0 else learned


@pytest.mark.parametrize("weight", [1.0, 0.8])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_prograd(case: Case, weight: float, temperature: float) -> None:
    """One teacher that the labels lead away from, and one that they lead to: only the first changes the gradient."""
    torch_prompts, vectors = TorchPrompts(case.reference, case.folder, NAMES), drawn(3, 64)
    descent = ProGradDescent(case.clip.graph, weight, temperature)
    found = []
    for sign in (1, -1):
        zero_shot = teacher_of(case, sign)
        known = frozen(case, CONTEXT) | {"zero_shot": zero_shot}
        rows = case.images, case.labels.astype(np.int32), np.ones(len(case.labels), np.float32)
        loss, gradient = jax.jit(descent.value_and_grad)({"context": vectors}, known, *rows)
        expected, learned, _, followed = torch_prograd(
            torch_prompts, vectors, (case.images, case.labels), zero_shot, weight, temperature
        )
        agree(loss, expected)
        agree(gradient["context"], followed)
        found.append(bool((followed == learned).all()))
    assert sorted(found) == [False, True]


def test_prograd_is_trained_as_in_torch(case: Case) -> None:
    """Whole logits after some updates; a teacher without a gradient of its own is no teacher."""
    import torch

    torch_prompts, zero_shot = TorchPrompts(case.reference, case.folder, NAMES), teacher_of(case, -1)
    recipe = Recipe(epochs=3, batch_size=4, learning_rate=0.3, warmup_epochs=0)
    known, start = frozen(case, CONTEXT) | {"zero_shot": zero_shot}, {"context": drawn(3, 64)}
    descent = ProGradDescent(case.clip.graph, 1.0, 1.0)
    found, losses = fit(descent, recipe, start, known, case.images, case.labels, seed=2)

    theirs = torch.nn.Parameter(torch.tensor(start["context"]))
    optimizer = torch.optim.SGD([theirs], lr=0.3, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    changed = 0
    for epoch, steps in enumerate(batches(6, recipe, 2)):
        for step, rows in enumerate(steps):
            given = case.images[rows], case.labels[rows]
            loss, learned, _, theirs.grad = torch_prograd(torch_prompts, theirs.detach().numpy(), given, zero_shot, 1.0, 1.0)
            changed += not torch.equal(learned, theirs.grad)
            agree(losses[epoch, step], loss)
            optimizer.step()
        schedule.step()
    assert changed, "the teacher has to make a difference here"
    agree(found["context"], theirs)
    scores = LearnedPrompts("prograd", NAMES, CONTEXT, found).scores(case.clip, case.images)
    agree(scores, torch_prompts.logits(torch.tensor(case.images), theirs), 1e-4)
    alone = {"zero_shot": np.zeros((4, 32), np.float32)}
    plain, _ = fit(CoOpLoss(case.clip.graph), recipe, start, known, case.images, case.labels, seed=2)
    assert np.isfinite(fit(descent, recipe, start, known | alone, case.images, case.labels, seed=2)[0]["context"]).all()
    assert np.abs(plain["context"] - found["context"]).max() > 1e-3


def test_sentences_are_chosen_as_published() -> None:
    import torch

    rng = np.random.default_rng(4)
    for count in (5, 50):
        scores = rng.normal(20, 3, count).astype(np.float32)
        expected = published_choice(torch.tensor(scores), 1.5).numpy()
        assert np.array_equal(chosen_sentences(scores, 1.5), expected)
    assert 0 < expected.sum() < 50
    # where the published form divides by 0 and keeps none
    for scores in (np.ones(7, np.float32), np.ones(1, np.float32), np.array([18, 20], np.float32)):
        assert chosen_sentences(scores, 1.5).all()


def test_rows_that_fill_up_a_batch_change_nothing(case: Case) -> None:
    sentences = unit_rows(np.random.default_rng(3), 9, 4, 32)
    known, trained = frozen(case, CONTEXT) | {"sentences": sentences}, {"context": drawn(3, 64)}
    objective = jax.jit(BiomedCoOpLoss(case.clip.graph, sccm=0.7, kdsp=0.4, threshold=1.2))
    weights = np.array([1, 1, 1, 1, 0, 0], np.float32)
    filled = objective(trained, known, case.images, case.labels, weights)
    assert abs(filled - objective(trained, known, case.images[:4], case.labels[:4], weights[:4])) <= 1e-5


@pytest.mark.parametrize("own", [False, True])
def test_classes_in_groups_give_the_same(case: Case, own: bool) -> None:
    """Many classes go through the tower a group at a time: same embeddings, same gradients, less memory kept."""
    names = tuple(f"{name} {i}" for i in range(11) for name in NAMES)
    layout = layout_for(case.clip, names, CONTEXT)
    vectors = drawn(44, 3, 64) if own else drawn(3, 64)
    target = unit_rows(np.random.default_rng(5), 44, 32)

    def loss(vectors, params, tokens_at_once: int):
        texts = encode_prompts(case.clip.graph, params, Layout(*layout), vectors, tokens_at_once)
        return (texts * target).sum(), texts

    def run(tokens_at_once: int):
        step = jax.jit(jax.value_and_grad(lambda v, p: loss(v, p, tokens_at_once), has_aux=True))
        compiled = step.lower(vectors, case.clip.params).compile()
        return compiled(vectors, case.clip.params), compiled.memory_analysis().temp_size_in_bytes

    ((_, whole), whole_gradient), most = run(10**9)
    ((_, parts), gradient), least = run(7 * layout.tokens.shape[1])
    agree(parts, whole, 1e-6)
    agree(gradient, whole_gradient, 1e-5)
    assert least < most / 2
