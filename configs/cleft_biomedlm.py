"""CLEFT's first stage on CheXpert: DINOv2 with registers learns beside BioMedLM, a GPT-2 of 2.6 billion numbers with LoRA.

    biomedclip data captions chexpert CheXpert-v1.0 --out chexpert.csv
    biomedclip train configs/cleft_biomedlm.py

Of 2,684 million numbers 90,054,401 are trained: the image tower, LoRA, both projections and the temperature. BioMedLM itself
is stored once for four devices, in bfloat16; its weights and tokenizer come from the hub, as do DINOv2's. As `biomedclip plan`
compiles it, a step needs 4.5 GiB of each of four A100s, 2.0 GiB of each of sixteen TPU v5e. A copy on each of the four,
`--sharding.fsdp 1 --compute.remat dots`, needs 18 GiB, gathers nothing and computes nothing twice.

- From the paper (MICCAI 2024, arXiv 2407.21011): a causal language model as text tower, frozen but for LoRA.
- From its code (XYPB/CLEFT 8d489d1559b9, the published command): sizes and poolings, LoRA of rank 8 and alpha 32 on the fused
  query, key and value, 4 x 72 pairs, 40,000 updates, AdamW 4e-5 with 0.9/0.999 and weight decay 0.1, 4,000 of warm-up, cosine
  to 1e-8, gray images of 256 pixels cut by Otsu's threshold and squashed to 224, seed 42, half of the images mirrored. The
  paper speaks of word embeddings that are trained, too; the published command does not do it: add "text/word" to `trainable`
  for it. The code's loss is the sum of both directions among the 72 pairs of a GPU:
  `--stages.0.loss.directions sum --stages.0.loss.negatives 72`.
- Ours: CLIP's loss over all pairs; trained numbers and AdamW's moments are float32 (the code: all is bfloat16); the temperature
  is kept at most 100 and does not decay; training images are a random crop of 83 to 100 % of the area (1.1⁻² is 0.83), bicubic,
  in the place of a rotation by up to 10°, a shift by 1/16 and a scale of 0.8 to 1.1, and none is blurred; 5 % of the patients
  are held out, not of the images; the position table is resized to 224 pixels once (from 518 in each pass).
"""

from biomedclip_jax.config import (
    Adaptation,
    AugmentConfig,
    CLIPConfig,
    ComputeConfig,
    DataConfig,
    GPTConfig,
    LoRAConfig,
    OptimizerConfig,
    PreprocessConfig,
    RunConfig,
    ShardingConfig,
    Stage,
    TrainConfig,
    ViTConfig,
)

HALVES = (0.5, 0.5, 0.5)
BIOMEDLM = "hf-hub:stanford-crfm/BioMedLM"

config = TrainConfig(
    name="cleft_biomedlm",
    data=DataConfig(
        train="chexpert.csv:train",
        held_out="chexpert.csv:validation",
        tokenizer=BIOMEDLM,
        crop_scale=(0.83, 1.0),
        augment=AugmentConfig(color_jitter=(0.2, 0.2, 0.0, 0.0), color_jitter_prob=0.4, flip_prob=0.5),
    ),
    model=CLIPConfig(
        image=ViTConfig(patch_size=14, registers=4, position_on_registers=False, layer_scale=True, pool="mean_prenorm"),
        text=GPTConfig(context_length=64, pool="first_eos"),
        image_head_bias=True,
        text_head="linear",
        text_head_bias=True,
    ),
    adaptation=Adaptation(text=LoRAConfig(rank=8, alpha=32, dropout=0.1, targets=("attention/qkv",))),
    preprocess=PreprocessConfig(
        224, HALVES, HALVES, interpolation="bilinear", resize_mode="squash", gray=True, square_size=256, otsu_crop=True
    ),
    stages=(Stage(steps=40_000, batch_size=288, trainable=("image", "*lora*", "*_head", "logit_scale")),),
    optimizer=OptimizerConfig(
        learning_rate=4e-5,
        final_learning_rate=1e-8,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.1,
        warmup_steps=4_000,
    ),
    compute=ComputeConfig(dtype="bfloat16", remat="full", frozen_dtype="bfloat16"),
    sharding=ShardingConfig(fsdp=4),
    image_init="hf-hub:timm/vit_base_patch14_reg4_dinov2.lvd142m",
    text_init=BIOMEDLM,
    run=RunConfig(evaluate_every=1_000),
    seed=42,
)
