"""Models that are only read, to be compared with: a folder each, with its towers, its names of tensors and its reader.

| folder      | models                           | what is its own                                       |
| ----------- | -------------------------------- | ----------------------------------------------------- |
| openai_clip | OpenAI's CLIP, PubMedCLIP        | sizes are read off the tensors                        |
| unimed_clip | UniMed-CLIP                      | CLIP's ViT beside BiomedBERT                          |
| mmlearn     | Open-PMC, before its 18M         | BiomedCLIP's towers in a Lightning checkpoint         |
| pmc_clip    | PMC-CLIP, in both of its forms   | text is padded to 77 tokens, and padding is looked at |
| medclip     | MedCLIP                          | Swin transformer; text from three blocks of BERT      |
| biovil      | BioViL, BioViL-T                 | image positions projected one by one; CXR-BERT's head |
| resnet      | no model: ResNet towers of these | torchvision's, and CLIP's with an attention pool      |

open_clip's RN50 has CLIP's ResNet, too.

`models` and `config` know none of them: a tower's config brings its own module (`config.OwnTower`). To add one,
write its folder and a line in the table of `interop.detect`.
"""
