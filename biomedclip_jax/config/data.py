"""What a run learns from: sources of image-caption pairs, and how images are changed in training."""

from dataclasses import dataclass

from biomedclip_jax.config.checks import check, operational

DEFAULT_TEMPLATE = "this is a photo of {}"  # BiomedCLIP's model card

Mix = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class AugmentConfig:
    """Changes of training images besides the crop, all off by default; named as in open_clip's `AugmentationCfg`."""

    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """How far brightness, contrast, saturation and hue may change. The first three are multiplied by a random factor from
    1 - x to 1 + x; hue is turned by up to x of the colour circle, at most 0.5. 0 leaves that one as it is."""
    color_jitter_prob: float = 0.0
    """Probability that an image gets the colour jitter; 0 turns it off."""
    gray_scale_prob: float = 0.0
    """Probability that an image becomes gray, still with three channels; 0 turns it off."""
    flip_prob: float = 0.0
    """Probability that an image is mirrored left to right; 0 turns it off. Leave it off where captions or labels speak of
    left and right."""

    def __post_init__(self) -> None:
        for field in ("color_jitter_prob", "gray_scale_prob", "flip_prob"):
            check(0 <= getattr(self, field) <= 1, self, field, "a probability, 0 to 1")
        fits = len(self.color_jitter) == 4 and all(value >= 0 for value in self.color_jitter)
        check(fits and self.color_jitter[3] <= 0.5, self, "color_jitter", "four numbers of 0 or more, the last at most 0.5")


@dataclass(frozen=True)
class DataConfig:
    """The image-caption pairs that a run learns from and is judged on, and how their images are cropped and changed.

    A source is one of
    - a table: `pairs.csv`, `.tsv`, `.jsonl` or `.parquet`, with a column of image paths, relative to the file, and one of
      captions (JSON lines and Parquet: a text, or a list of texts of which one is drawn each time); `pairs.csv:train` are
      the rows whose column `split` says so;
    - Parquet with the pictures in it, as the Hugging Face hub has them: a file, `data/train-*.parquet`, a folder of such
      files and its split (`path/to/folder:train`; also what `datasets` saved), or `hf://datasets/ORG/NAME:train`, which
      must be on this machine;
    - WebDataset tars: `shards/{00000..00009}.tar` or `shards/*.tar`, also `s3://`, `gs://`, `https://`, with
      `key.jpg|jpeg|png|webp`, `key.txt` and perhaps `key.json`;
    - a build of ours or any folder that TFDS wrote as ArrayRecord, and its split: `path/to/build:train`;
    - a TFDS data set that is prepared on this machine, and its split: `tfds:name:train`;
    - the quickstart's own pairs, made in the run folder: `demo:quickstart:train` and `demo:quickstart:held_out`.
    Where a model learns to answer questions (`model.answering`), a source is a table with an image, a question
    (caption_column) and an answer (label_column) in each row, `demo:vqa:train`, or `NAME=DIR:PART` or
    `NAME/SPLIT=DIR:PART`, such as `vqa-rad/clean=DIR:train` or `slake=DIR:validation`, with the names and splits of
    `biomedclip evaluate vqa`.
    `{workdir}` in a path stands for the run folder.
    """

    train: str | Mix
    """Source of the training pairs: a table, WebDataset tars, a build or a TFDS split. Several sources with weights are
    written a.csv 3.0 b.csv 1.0 on the command line and (("a.csv", 3.0), ("b.csv", 1.0)) in a file: three of four pairs are
    then from the first, whatever the sizes, and an epoch is as many pairs as all sources have together."""
    held_out: str | None = None
    """Source of the pairs that a run is judged on and never trained on; of several captions of an image the first counts.
    None: the run is not evaluated."""
    tokenizer: str = "hf-hub:microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    """Tokenizer of the captions: a folder with its files, a model folder, a run folder, or hf-hub:org/name. The
    demonstrations have their own, demo:quickstart, for causal language models demo:causal, and for questions demo:vqa."""
    image_column: str = "image"
    """Column of a table, or feature of a TFDS data set, with the images. Paths are relative to the table. Of a table that has
    names alone a text with columns in braces: train/{ID}.jpg."""
    caption_column: str = "caption"
    """Column of a table, or feature of a TFDS data set, with the captions. For WebDataset tars any name but caption is the
    field of the .json that takes the place of the .txt."""
    label_column: str | None = None
    """Column with the class of each image, for the accuracy on held_out and for stages that learn from labels, or with the
    answers to questions. None: the images have no labels."""
    label_separator: str | None = None
    """Text between the labels of one image, such as |, for the loss MultiLabel. None: an image has one label."""
    template: str = DEFAULT_TEMPLATE
    """Sentence that turns a label into a caption; the label replaces the {}. Learned context starts from the words before
    the {}."""
    crop_scale: tuple[float, float] = (0.9, 1.0)
    """Smallest and largest share of its area that the random crop of a training image keeps (RandomResizedCrop with
    open_clip's default); 1 1 keeps as much as the aspect ratios from 3/4 to 4/3 allow."""
    augment: AugmentConfig = AugmentConfig()
    """Changes of training images besides the crop."""
    reference_share: float = 0.0
    """Share of the captions, 0 to 1, in whose place a paragraph that mentions the figure is drawn, for figures that have
    one. 0: captions only."""
    workers: int | None = operational(None)
    """Processes that decode images, for each process of the run. 0: threads of the process itself; None: decided by the
    number of processor cores and of pairs."""

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        check(0 < low <= high <= 1, self, "crop_scale", "two shares of the area, 0 < low <= high <= 1")
        check("{}" in self.template, self, "template", "a sentence with {} where the label goes")
        check(self.label_separator != "", self, "label_separator", "None, or a text such as '|'")
        if not isinstance(self.train, str):
            pairs = all(isinstance(part, tuple) and len(part) == 2 for part in self.train)
            fits = pairs and len(self.train) > 0
            check(fits, self, "train", 'a source, or sources with weights, such as (("a.csv", 3.0), ("b.csv", 1.0))')
            check(all(weight > 0 for _, weight in self.train), self, "train", "weights above 0")
        check(0 <= self.reference_share <= 1, self, "reference_share", "0 to 1")
        check(self.workers is None or self.workers >= 0, self, "workers", "None, or a whole number of 0 or more")
