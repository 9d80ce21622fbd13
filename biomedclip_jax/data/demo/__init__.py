"""Data for a first run without a download: pictures that pip packages carry, with captions and a tokenizer made here.

In: the packages of `pip install 'biomedclip_jax[demo]'`. Out: tables, images and a tokenizer in the folder of the run.
Read `quickstart` first.
"""
