"""QCR: a question's type chooses one of two branches of bilinear attention between its words and the image.

Zhan et al., Medical Visual Question Answering via Conditional Reasoning, ACM MM 2020, as its public code computes it
(github.com/Awenbocc/med-vqa); PubMedCLIP's variant of it sees the image with CLIP. Read `model.py` first.
"""
