"""BiomedCLIP fine-tuned on your own pairs with LoRA: both towers stay as they are, small matrices beside them learn.

    biomedclip train configs/lora_biomedclip.py --data.train my/train.csv --data.held-out my/held_out.csv

The tables have columns `image`, with paths relative to the table, and `caption`. Of 196 million numbers 1.8 million are
trained: adapters of rank 8 on queries and values (PEFT's choice for BERT and ViT), the projections and the temperature. The
finished run has `model/`, a whole model like any other, and `adapter/`, a few megabytes that make it of BiomedCLIP:

    from_pretrained("hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", adapter="runs/lora_biomedclip/adapter")
"""

from biomedclip_jax.config import (
    Adaptation,
    BertConfig,
    CLIPConfig,
    ComputeConfig,
    DataConfig,
    LoRAConfig,
    OptimizerConfig,
    RunConfig,
    Stage,
    TrainConfig,
)

LORA = LoRAConfig(rank=8, alpha=16, dropout=0.1, targets=("attention/query", "attention/value"))
BIOMEDCLIP = "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"

config = TrainConfig(
    name="lora_biomedclip",
    data=DataConfig(train="pairs/train.csv", tokenizer=BIOMEDCLIP),
    model=CLIPConfig(text=BertConfig(context_length=256)),
    adaptation=Adaptation(image=LORA, text=LORA),
    model_init=BIOMEDCLIP,
    stages=(Stage(epochs=10, batch_size=64, trainable=("*lora*", "*_head", "logit_scale")),),
    optimizer=OptimizerConfig(learning_rate=2e-4, weight_decay=0.01, warmup_steps=50, clip_norm=1.0),
    compute=ComputeConfig(remat="dots"),
    run=RunConfig(log_every=10, checkpoint_every=100),
)
