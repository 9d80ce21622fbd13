"""Questions about the quickstart's regions, whose answers are known from the pictures and their headers.

Each question has, word for word, each of its answers equally often: "is this a ct?" is asked of as many regions that
are one as of others. So the words alone tell nothing, in training and held out. What is not known for sure is not
asked: nobody is asked whether an X-ray of the chest shows the shoulder.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from biomedclip_jax.config import DEFAULT_TEMPLATE
from biomedclip_jax.data.demo import _question_facts as facts
from biomedclip_jax.data.demo import _quickstart as quickstart
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.files import write_folder

COLUMNS = ("image", "question", "answer", "answer_type", "question_type", "source")
GRAY, COLOURED = 0.001, 0.05  # at most, at least this share of a region's pixels has a colour

_CHROMA = 40  # largest minus smallest of red, green and blue; less looks gray
_MARGIN = 2  # percent of the picture; so far a region must stay from what it is said not to show


class Region(NamedTuple):
    """A region and what is known of it.

    image: as the tables of questions name it. colour: the share of its pixels that have one. visible: its landmarks.
    touched: those it comes near to.
    """

    image: str
    label: str
    source: str
    known: facts.Known
    colour: float
    visible: frozenset[str]
    touched: frozenset[str]


Regions = Sequence[Region]


class Ask(NamedTuple):
    """One question in several wordings, with all its answers, which are asked for equally often.

    answers: each with pools of regions that have it; every pool is drawn from as often as the others.
    train, held_out: how often each answer is asked for in a split.
    """

    kind: str
    closed: bool
    texts: tuple[str, ...]
    answers: Mapping[str, tuple[Regions, ...]]
    train: int
    held_out: int


def make_vqa_demo(workdir: Path) -> None:
    """Write `workdir/data/` as `make_demo` does, and `workdir/questions/`: `train.csv`, `held_out.csv`, `tokenizer/`.

    The same packages give the same bytes every time. UserError as of `make_demo`.
    """
    quickstart.make_demo(workdir)
    questions = workdir / "questions"
    if not (questions / "train.csv").is_file():
        write_folder(questions, lambda folder: _fill(folder, workdir / "data"))


def _fill(folder: Path, data: Path) -> None:
    packages = quickstart.find_packages()
    paths = [source.path for source in quickstart.SOURCES]
    sizes = {path: load_image(packages[path.split("/")[0]].parent / path).size for path in paths}
    regions = {split: _regions(data, split, sizes) for split in ("train", "held_out")}
    # A question is asked in both splits or in none.
    asks = {split: {ask.texts: ask for ask in _asks(own) if _complete(ask)} for split, own in regions.items()}
    texts = list[str]()
    for split in regions:
        common = [ask for texts, ask in asks[split].items() if all(texts in other for other in asks.values())]
        rows = sorted(_rows(common, split))
        texts += [row[1] for row in rows]
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    with (data / "train.csv").open(encoding="utf-8", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    captions += [DEFAULT_TEMPLATE.format(label) for label in quickstart.MODALITIES]
    quickstart.write_tokenizer(folder / "tokenizer", captions, texts)


def _rows(asks: Iterable[Ask], split: str) -> Iterator[tuple[str, ...]]:
    """The rows of a split. Regions that have been asked about least come first; none is asked the same twice."""
    generator = np.random.default_rng([quickstart.SEED, split == "train"])
    used: Counter[str] = Counter()
    asked = set[tuple[str, str]]()
    for ask in asks:
        texts = itertools.cycle(generator.permutation(list(ask.texts)).tolist())
        for text in itertools.islice(texts, ask.train if split == "train" else ask.held_out):
            found: dict[str, Region] = {}
            for answer, pools in ask.answers.items():
                pool = pools[generator.integers(len(pools))]
                sources = sorted({each.source for each in pool if (each.image, text) not in asked})
                if not sources:
                    break
                source = sources[generator.integers(len(sources))]
                free = [each for each in pool if each.source == source and (each.image, text) not in asked]
                least = min(used[each.image] for each in free)
                free = [each for each in free if used[each.image] == least]
                found[answer] = free[generator.integers(len(free))]
            if len(found) < len(ask.answers):
                continue  # for all answers or for none
            for answer, region in found.items():
                used[region.image] += 1
                asked.add((region.image, text))
                yield region.image, text, answer, "closed" if ask.closed else "open", ask.kind, region.source


def _complete(ask: Ask) -> bool:
    return len(ask.answers) > 1 and all(ask.answers.values())


def _regions(data: Path, split: str, sizes: Mapping[str, tuple[int, int]]) -> list[Region]:
    """The regions of a split. sizes: of the pictures that they were cut out of, width and height."""
    sources = {source.path: source for source in quickstart.SOURCES}
    found = list[Region]()
    with (data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            source, size = sources[row["source"]], sizes[row["source"]]
            x0, y0, x1, y1 = map(int, row["region"].split())
            region = Region(
                image=f"../{data.name}/{row['image']}",
                label=row["label"],
                source=row["source"],
                known=facts.KNOWN[Path(row["source"]).name],
                colour=_share_of_colour(data / row["image"]),
                visible=frozenset(quickstart.visible(source, (x0, y0, x1, y1), *size)),
                touched=frozenset(_touched(source, (x0, y0, x1, y1), *size)),
            )
            found.append(region)
    return found


def _share_of_colour(path: Path) -> float:
    with Image.open(path) as image:
        if image.mode == "L":
            return 0.0
        red, green, blue = (np.asarray(band).astype(int) for band in image.convert("RGB").split())
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return float((chroma > _CHROMA).mean())


def _touched(source: quickstart.Source, box: tuple[int, int, int, int], width: int, height: int) -> Iterator[str]:
    """The landmarks that a region comes near to."""
    for name, places in source.landmarks.items():
        for place in places.split(","):
            x0, y0, x1, y1 = map(int, place.split())
            grown = (x0 - _MARGIN, y0 - _MARGIN, x1 + _MARGIN, y1 + _MARGIN)
            left, top, right, bottom = quickstart.to_pixels(grown, width, height)
            if left < box[2] and box[0] < right and top < box[3] and box[1] < bottom:
                yield name


def _asks(regions: Regions) -> Iterator[Ask]:
    """All questions, with the regions of a split that have each answer."""

    def by(known: Callable[[Region], str | None]) -> dict[str, Regions]:
        found: dict[str, list[Region]] = {}
        for each in regions:
            if (answer := known(each)) is not None:
                found.setdefault(answer, []).append(each)
        return dict(found)

    modality, organ = by(lambda each: each.known.modality), by(lambda each: _organ(each))
    view, plane, colour = by(lambda each: each.known.view), by(lambda each: each.known.plane), by(_colour)
    yield _open("modality", facts.MODALITY, modality, 36, 9)
    yield _open("organ", facts.ORGAN, organ, 24, 6)
    yield _open("view", facts.VIEW, view, 24, 5)
    yield _open("plane", facts.PLANE, plane, 24, 5)
    yield _open("colour", facts.COLOUR, colour, 16, 4)
    for name, phrase in facts.A_MODALITY.items():
        yield _yes_no("modality", _worded(facts.IS_THIS, [phrase]), modality.get(name, ()), [_others(modality, name)], 20, 4)
    for name in organ:
        far = {other: own for other, own in organ.items() if not _touching(name, other)}
        yield _yes_no("organ", _worded(facts.IS_FROM, [name]), organ[name], [_others(far, name)], 10, 2)
    yield from _labels(regions)
    yield from _presence(regions)
    yield from _views(regions, view, plane)
    yield from _colours(regions)
    for one, other in itertools.combinations(facts.A_MODALITY, 2):
        phrases = [f"{facts.A_MODALITY[a]} or {facts.A_MODALITY[b]}" for a, b in ((one, other), (other, one))]
        yield _choice("modality", _worded(facts.IS_THIS[:3], phrases), _two(modality, one, other), 6, 1)
    for one, other in itertools.combinations(organ, 2):
        if not _touching(one, other):
            phrases = [f"{a} or the {b}" for a, b in ((one, other), (other, one))]
            yield _choice("organ", _worded(facts.IS_FROM[:3], phrases), _two(organ, one, other), 3, 1)


def _labels(regions: Regions) -> Iterator[Ask]:
    """Whether this is a head CT, a chest radiograph ...; half of the others have its modality or body part."""
    for label, said in quickstart.MODALITIES.items():
        phrases = [phrase.lower() for phrase in said[1:]]
        own = [each for each in regions if each.label == label]
        alike = {other for pair in facts.ALIKE if label in pair for other in pair} | {label}
        others = [each for each in regions if each.label not in alike]
        modalities, organs = ({getattr(each.known, name) for each in own} - {None} for name in ("modality", "organ"))
        hard = [each for each in others if each.known.modality in modalities or each.known.organ in organs]
        yield _yes_no("kind of picture", _worded(facts.IS_THIS, phrases), own, [hard, others], 10, 2)


def _presence(regions: Regions) -> Iterator[Ask]:
    """Whether something shows; half of the regions where it does not are, where possible, of pictures that have it."""
    for name, structure in facts.STRUCTURES.items():
        shown = [each for each in regions if each.visible.intersection(structure.marks)]
        around = {*structure.marks, *structure.near}
        absent = [each for each in regions if each.label not in structure.unsure and not each.touched & around]
        labels = {source.label for source in quickstart.SOURCES if source.landmarks.keys() & set(structure.marks)}
        hard = [each for each in absent if each.label in labels]
        others = [each for each in absent if each.label not in labels]
        yield _yes_no("presence", _worded(facts.SHOWS, [name]), shown, [hard, others], 12, 2)


def _views(regions: Regions, view: Mapping[str, Regions], plane: Mapping[str, Regions]) -> Iterator[Ask]:
    axial = plane.get("axial", ())
    for name, a in (("frontal", "a frontal"), ("apical", "an apical"), ("transesophageal", "a transesophageal")):
        texts = _worded(("is this {} view?", "do we see {} view?", "was {} view used here?"), [a])
        yield _yes_no("view", texts, view.get(name, ()), [_others(view, name), axial], 9, 2)
    for name, a in (("axial", "an axial"), ("coronal", "a coronal")):
        texts = _worded(("is this {} slice?", "do we see {} slice?", f"is the plane {name}?"), [a])
        yield _yes_no("plane", texts, plane.get(name, ()), [_others(plane, name)], 9, 2)
    texts = _worded(("is this slice {}?", "is the plane {}?"), ["axial or coronal", "coronal or axial"])
    yield _choice("plane", texts, plane, 12, 2)


def _colours(regions: Regions) -> Iterator[Ask]:
    gray = [each for each in regions if each.colour <= GRAY]
    coloured = [each for each in regions if each.colour >= COLOURED]
    texts = _worded(("is this picture in {}?", "do we see {} here?"), ["colour or gray", "gray or colour"])
    yield _choice("colour", texts, {"colour": coloured, "gray": gray}, 16, 4)
    yield _yes_no("colour", ("is this picture gray?", "is all of this gray?"), gray, [coloured], 12, 2)
    yield _yes_no("colour", ("is there colour in this picture?", "is this in colour?"), coloured, [gray], 12, 2)
    flow = [each for each in coloured if each.visible.intersection(facts.FLOWS)]
    still = [each for each in gray if each.known.modality == "ultrasound"]
    texts = ("is blood flow shown in colour?", "do we see the flow of blood in colour?", "is flow of blood marked here?")
    yield _yes_no("presence", texts, flow, [still], 12, 2)


def _organ(region: Region) -> str | None:
    """The body part. A region beside the spine shows none of it, though its picture was made for it."""
    bones = {"the vertebral body", "the spinal canal", "the bony vertebral arch"}
    return None if region.known.organ == "spine" and not region.visible & bones else region.known.organ


def _colour(region: Region) -> str | None:
    return facts.COLOURS.get(Path(region.source).name) if region.colour >= COLOURED else None


def _touching(one: str, other: str) -> bool:
    return other in facts.TOUCHING.get(one, ()) or one in facts.TOUCHING.get(other, ())


def _two(groups: Mapping[str, Regions], one: str, other: str) -> Mapping[str, Regions]:
    return {name: groups.get(name, ()) for name in (one, other)}


def _others(groups: Mapping[str, Regions], name: str) -> Regions:
    return [each for other, own in groups.items() if other != name for each in own]


def _worded(templates: Iterable[str], phrases: Iterable[str]) -> tuple[str, ...]:
    return tuple(template.format(phrase) for phrase in phrases for template in templates)


def _open(kind: str, texts: tuple[str, ...], answers: Mapping[str, Regions], train: int, held_out: int) -> Ask:
    return Ask(kind, False, texts, {answer: (own,) if own else () for answer, own in answers.items()}, train, held_out)


def _choice(kind: str, texts: tuple[str, ...], answers: Mapping[str, Regions], train: int, held_out: int) -> Ask:
    return _open(kind, texts, answers, train, held_out)._replace(closed=True)


def _yes_no(kind: str, texts: tuple[str, ...], yes: Regions, no: Sequence[Regions], train: int, held_out: int) -> Ask:
    return Ask(kind, True, texts, {"yes": (yes,) if yes else (), "no": tuple(pool for pool in no if pool)}, train, held_out)
