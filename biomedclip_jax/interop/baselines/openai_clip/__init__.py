"""OpenAI's CLIP and PubMedCLIP, by their own files. `reader.py` says how they are released."""
