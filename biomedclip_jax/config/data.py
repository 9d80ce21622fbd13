"""What a run learns from: sources of image-caption pairs, and how images are changed in training."""

from dataclasses import dataclass

from biomedclip_jax.config.checks import check, operational

DEFAULT_TEMPLATE = "this is a photo of {}"  # BiomedCLIP's model card

Mix = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class AugmentConfig:
    """Changes of training images besides the crop, all off by default; named as in open_clip's `AugmentationCfg`."""

    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # most of brightness, contrast, saturation, hue
    color_jitter_prob: float = 0.0
    gray_scale_prob: float = 0.0
    flip_prob: float = 0.0  # left and right change places: not where a caption or a label may speak of sides

    def __post_init__(self) -> None:
        for field in ("color_jitter_prob", "gray_scale_prob", "flip_prob"):
            check(0 <= getattr(self, field) <= 1, self, field, "a probability, 0 to 1")
        fits = len(self.color_jitter) == 4 and all(value >= 0 for value in self.color_jitter)
        check(fits and self.color_jitter[3] <= 0.5, self, "color_jitter", "four numbers of 0 or more, the last at most 0.5")


@dataclass(frozen=True)
class DataConfig:
    """Image-caption pairs.

    A source is one of
    - a table: `pairs.csv`, `.tsv`, `.jsonl` or `.parquet`, with a column of image paths, relative to the file, and one of
      captions (JSON lines and Parquet: a text, or a list of texts of which one is drawn each time); `pairs.csv:train` are
      the rows whose column `split` says so;
    - WebDataset tars: `shards/{00000..00009}.tar` or `shards/*.tar`, also `s3://`, `gs://`, `https://`, with
      `key.jpg|jpeg|png|webp`, `key.txt` and perhaps `key.json`;
    - a build of ours or any folder that TFDS wrote as ArrayRecord, and its split: `path/to/build:train`;
    - a TFDS data set that is prepared on this machine, and its split: `tfds:name:train`;
    - the quickstart's own pairs, made in the run folder: `demo:quickstart:train` and `demo:quickstart:held_out`, with
      `demo:quickstart` as tokenizer, or `demo:causal` as the tokenizer of a causal language model.
    `train` may be several of them with weights, (("a.csv", 3.0), ("b/*.tar", 1.0)): of four pairs three are of the first,
    whatever the sizes; an epoch is then as many pairs as there are in all sources together. Of several captions of a
    held-out image the first counts. `{workdir}` in a path stands for the run folder.
    """

    train: str | Mix
    held_out: str | None = None
    tokenizer: str = "hf-hub:microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"  # a folder, or hf-hub:org/name
    image_column: str = "image"  # of a table; the feature's name of a TFDS data set
    caption_column: str = "caption"  # the same; of tars, where it is another, the field of the .json that is used for the .txt
    label_column: str | None = None  # the class of an image: for accuracy on held_out, and for stages that learn of labels
    label_separator: str | None = None  # between the labels of one image, for the objective "multilabel"
    template: str = DEFAULT_TEMPLATE  # turns a label into a caption; learned context starts from the words before the {}
    crop_scale: tuple[float, float] = (0.9, 1.0)  # RandomResizedCrop, open_clip's default
    augment: AugmentConfig = AugmentConfig()
    reference_share: float = 0.0  # of the captions are replaced by a paragraph that mentions the figure, where there is one
    workers: int | None = operational(
        None
    )  # processes that decode images; 0: threads of this one; None: by the processors and the work

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
