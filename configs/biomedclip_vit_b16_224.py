"""The released BiomedCLIP recipe: ViT-B/16 at 224 px, PubMedBERT with 256 tokens, constant batch 4,096, 32 epochs.

    biomedclip train configs/biomedclip_vit_b16_224.py --workdir runs/biomedclip

Source: NEJM AI 2024 / arXiv 2303.00915v3, supplementary table 9. AdamW 5e-4, betas 0.9/0.98, eps 1e-6, weight decay 0.2,
2,000 warm-up steps, cosine to 0. The image tower starts from ImageNet, the text tower from PubMedBERT.
`pmc15m/` holds a table of images and captions for each split.
"""

from biomedclip_jax.config import (
    BertConfig,
    CLIPConfig,
    ComputeConfig,
    DataConfig,
    OptimizerConfig,
    Stage,
    TrainConfig,
    ViTConfig,
)

config = TrainConfig(
    name="biomedclip_vit_b16_224",
    data=DataConfig(train="pmc15m/train.jsonl", held_out="pmc15m/dev.jsonl"),
    model=CLIPConfig(image=ViTConfig(), text=BertConfig(context_length=256)),
    stages=(Stage(epochs=32, batch_size=4_096),),
    optimizer=OptimizerConfig(learning_rate=5e-4, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2, warmup_steps=2_000),
    compute=ComputeConfig(dtype="bfloat16", remat="dots"),
    image_init="hf-hub:timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
    text_init="hf-hub:microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
)
