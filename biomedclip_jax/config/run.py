"""A whole training run: data, model, stages."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.config.adapters import PrefixConfig
from biomedclip_jax.config.checks import check, check_positive
from biomedclip_jax.config.losses import MultiLabel, Sigmoid
from biomedclip_jax.config.model import CLIPConfig, PreprocessConfig
from biomedclip_jax.config.training import AugmentConfig, ComputeConfig, OptimizerConfig, ShardingConfig, Stage

DEFAULT_TEMPLATE = "this is a photo of {}"  # BiomedCLIP's model card

Mix = tuple[tuple[str, float], ...]


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
    - a TFDS data set that is prepared on this machine, and its split: `tfds:name:train`.
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
    workers: int | None = None  # processes that decode images; 0: threads of this one; None: by the processors and the work

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


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    name: str
    data: DataConfig
    stages: tuple[Stage, ...]
    model: CLIPConfig = CLIPConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = ComputeConfig()
    sharding: ShardingConfig = ShardingConfig()
    image_init: str | None = None  # pretrained weights of a tower or of the whole model: folder or hf-hub:org/name
    text_init: str | None = None
    model_init: str | None = None
    interpolate: float = 1.0  # share of the trained weights in the exported model, the rest are the starting weights (WiSE-FT)
    seed: int = 0
    log_every: int = 50  # steps
    evaluate_every: int | None = None  # steps between evaluations on data.held_out; the last step is always evaluated
    checkpoint_every: int = 1_000  # steps
    checkpoint_minutes: float = 20.0  # a checkpoint also when this much time has passed since the last
    keep_checkpoints: int = 2  # the newest; with evaluate_every, the one with the lowest held-out loss besides
    stall_minutes: float = 30.0  # a run that makes no step for so long ends with an error that names the late host
    prepare: Callable[[Path], None] | None = None  # makes the data inside the run folder, before anything else

    def __post_init__(self) -> None:
        check(len(self.stages) > 0, self, "stages", "at least one Stage")
        check_positive(self, "log_every", "checkpoint_every", "keep_checkpoints")
        if self.evaluate_every is not None:
            check_positive(self, "evaluate_every")
            check(self.data.held_out is not None, self, "evaluate_every", "None without data.held_out")
        for field in ("checkpoint_minutes", "stall_minutes"):
            check(getattr(self, field) > 0, self, field, "minutes above 0")
        check(0 <= self.interpolate <= 1, self, "interpolate", "0 to 1")
        prefix = any(isinstance(a, PrefixConfig) for a in (self.model.image_adapter, self.model.text_adapter))
        check(self.interpolate == 1 or not prefix, self, "interpolate", "1 with a prefix, which is no part of the weights")
        same = self.preprocess.image_size == self.model.image.image_size
        check(same, self.preprocess, "image_size", f"model.image.image_size = {self.model.image.image_size}")
        exclusive = self.model_init is None or (self.image_init is None and self.text_init is None)
        check(exclusive, self, "model_init", "None when image_init or text_init is given")
        for stage in self.stages:
            patch = self.model.vit.patch_size
            check(self.image_size(stage) % patch == 0, stage, "image_size", f"a multiple of patch_size = {patch}")
            self._check_labels(stage)
            biased = not isinstance(stage.loss, Sigmoid) or self.model.init_logit_bias is not None
            check(biased, stage, "loss", "model.init_logit_bias to be set (SigLIP: -10) with the sigmoid loss")

    def _check_labels(self, stage: Stage) -> None:
        data = self.data
        if stage.prompted:
            check(self.model.context > 0, stage, "loss", "model.context above 0, the vectors to be learned before a label")
            check(data.label_column is not None, data, "label_column", "a column, because a stage learns of labels")
            one = isinstance(stage.loss, MultiLabel) or data.label_separator is None
            check(one, data, "label_separator", f"None with the loss {stage.loss!r}, for which an image has one label")

    def image_size(self, stage: Stage) -> int:
        """Side of the images in a stage, in pixels."""
        return stage.image_size or self.model.image.image_size

    def preprocess_in(self, stage: Stage) -> PreprocessConfig:
        """How images become pixels in a stage."""
        return dataclasses.replace(self.preprocess, image_size=self.image_size(stage))

    def model_in(self, stage: Stage) -> CLIPConfig:
        """The model's config in a stage."""
        return self.model_at(self.image_size(stage))

    def model_at(self, image_size: int) -> CLIPConfig:
        """The model's config for images of this size."""
        return dataclasses.replace(self.model, image=dataclasses.replace(self.model.image, image_size=image_size))
