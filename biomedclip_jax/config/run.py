"""A whole training run: data, model, stages."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from biomedclip_jax.config.adapters import UNADAPTED, Adaptation
from biomedclip_jax.config.answering import QCRConfig
from biomedclip_jax.config.checks import check, check_choices, check_positive, operational
from biomedclip_jax.config.data import DataConfig
from biomedclip_jax.config.losses import MultiLabel, QuestionTypes, Sigmoid
from biomedclip_jax.config.model import CLIPConfig, PreprocessConfig
from biomedclip_jax.config.training import ComputeConfig, OptimizerConfig, ShardingConfig, Stage

WriterName = Literal["tensorboard", "wandb", "trackio"]


@dataclass(frozen=True)
class RunConfig:
    """How a run is watched and kept. Nothing here decides what is learned, so all of it may change when a run goes on."""

    log_every: int = 50
    """Updates between two lines of metrics, on the terminal and in metrics.jsonl."""
    evaluate_every: int | None = None
    """Updates between two evaluations on data.held_out; the start and the last update are then always evaluated. None: only
    the finished run is evaluated and, where it began from pretrained weights, the start."""
    checkpoint_every: int = 1_000
    """Updates between two checkpoints, from which an interrupted run goes on."""
    checkpoint_minutes: float = 20.0
    """A checkpoint is also written when this many minutes have passed since the last one."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept; with evaluate_every, the one with the lowest held-out loss besides."""
    stall_minutes: float = 30.0
    """A run that makes no step for this many minutes ends with exit code 124 and an error that names the late host."""
    writers: tuple[WriterName, ...] = ()
    """Where the lines of metrics.jsonl go besides; each needs the extra of its name."""

    def __post_init__(self) -> None:
        known = get_args(WriterName)
        check(all(name in known for name in self.writers), self, "writers", f"some of {', '.join(map(repr, known))}")
        check_positive(self, "log_every", "checkpoint_every", "keep_checkpoints")
        if self.evaluate_every is not None:
            check_positive(self, "evaluate_every")
        for field in ("checkpoint_minutes", "stall_minutes"):
            check(getattr(self, field) > 0, self, field, "minutes above 0")


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run: what is learned from, which model learns, and in which stages."""

    name: str
    """Name of the experiment; its run folder is runs/NAME unless --workdir says otherwise."""
    data: DataConfig
    """Pairs to learn from and to be judged on."""
    stages: tuple[Stage, ...]
    """Parts of the run, one after another; on the command line they are counted from 0."""
    model: CLIPConfig = CLIPConfig()
    """Towers, heads and temperature."""
    adaptation: Adaptation = UNADAPTED
    """What is trained beside the model's own weights: adapters in its towers, learned context before labels."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """How an image becomes pixels."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer of all stages that have none of their own."""
    compute: ComputeConfig = ComputeConfig()
    """How the towers compute."""
    sharding: ShardingConfig = operational(ShardingConfig())
    """How parameters are divided among devices."""
    image_init: str | None = None
    """Pretrained weights that the image tower starts from: a folder, a file, a model whose tower it is (a model folder, a
    run folder) or hf-hub:org/name. None: random ones."""
    text_init: str | None = None
    """Pretrained weights that the text tower starts from: a folder, a file, a model whose tower it is (a model folder, a
    run folder) or hf-hub:org/name. None: random ones."""
    model_init: str | None = None
    """Pretrained model, both towers with their heads, that the run starts from: a model folder, a run folder or
    hf-hub:org/name. None: the towers start from image_init and text_init."""
    interpolate: float = 1.0
    """Share, 0 to 1, of the trained weights in the exported model; the rest are the starting weights (WiSE-FT). 1 exports
    what was trained."""
    export: Literal["best", "last"] = "best"
    """Which weights a finished run hands over. "best": those with the lowest loss on data.held_out, of the start and the
    evaluations of the last stage. Without run.evaluate_every these are the start, if it was pretrained, and the end.
    "last": those after the last update."""
    patience: int | None = None
    """Evaluations in a row without a lower held-out loss after which a run ends (early stopping); needs
    run.evaluate_every. None: it never ends early."""
    seed: int = 0
    """Number that all random choices follow from: starting weights, order of the data, crops, dropout."""
    run: RunConfig = operational(RunConfig())
    """How the run is watched and kept."""

    def __post_init__(self) -> None:
        check(len(self.stages) > 0, self, "stages", "at least one Stage")
        check_choices(self, export=Literal["best", "last"])
        if self.patience is not None:
            check_positive(self, "patience")
        if self.data.held_out is None:
            check(self.run.evaluate_every is None, self.run, "evaluate_every", "None without data.held_out")
        check(0 <= self.interpolate <= 1, self, "interpolate", "0 to 1")
        self.adaptation.check_fits(self.model)
        prefix = self.adaptation.unmergeable != UNADAPTED
        check(self.interpolate == 1 or not prefix, self, "interpolate", "1 with a prefix, which is no part of the weights")
        same = self.preprocess.image_size == self.model.image.image_size
        check(same, self.preprocess, "image_size", f"model.image.image_size = {self.model.image.image_size}")
        exclusive = self.model_init is None or (self.image_init is None and self.text_init is None)
        check(exclusive, self, "model_init", "None when image_init or text_init is given")
        for stage in self.stages:
            patch = self.model.vit.patch_size
            check(self.image_size(stage) % patch == 0, stage, "image_size", f"a multiple of patch_size = {patch}")
            whole_words = self.compute.images_in == "device" or self.image_size(stage) % 2 == 0
            check(whole_words, self.compute, "images_in", "'device', because a stage has images with an odd side")
            self._check_labels(stage)
            self._check_answers(stage)
            biased = not isinstance(stage.loss, Sigmoid) or self.model.init_logit_bias is not None
            check(biased, stage, "loss", "model.init_logit_bias to be set (SigLIP: -10) with the sigmoid loss")

    def _check_labels(self, stage: Stage) -> None:
        data = self.data
        if stage.prompted:
            check(
                self.adaptation.context > 0,
                stage,
                "loss",
                "adaptation.context above 0, the vectors to be learned before a label",
            )
            check(data.label_column is not None, data, "label_column", "a column, because a stage learns of labels")
            one = isinstance(stage.loss, MultiLabel) or data.label_separator is None
            check(one, data, "label_separator", f"None with the loss {stage.loss!r}, for which an image has one label")

    def _check_answers(self, stage: Stage) -> None:
        """All stages answer questions or none does: captions and questions are columns, and token ids, of their own."""
        answering = self.model.answering
        needed = "Answers(), because the model has `answering`" if answering is not None else "a loss of captions or labels"
        check(stage.answers == (answering is not None), stage, "loss", f"{needed}, in every stage")
        if stage.answers:
            check(self.data.label_column is not None, self.data, "label_column", "the column with the answers")
            check(isinstance(self.data.train, str), self.data, "train", "one source, where answers are learned")
        if isinstance(answering, QCRConfig) and answering.sees_gray:
            own, pixels = (answering.mean, answering.std), (self.preprocess.mean, self.preprocess.std)
            check(own == pixels, answering, "mean", f"with std the preprocessing's, {pixels[0]} and {pixels[1]}")
        types = isinstance(stage.loss, QuestionTypes)
        check(not types or isinstance(answering, QCRConfig), stage, "loss", "Answers(): only QCR has a classifier of questions")

    @property
    def prompted(self) -> bool:
        """Whether a stage learns of labels that stand after the learned context."""
        return any(stage.prompted for stage in self.stages)

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
