"""How good a model is: its embeddings on labelled images or pairs go in, results with intervals, tables and pictures come out.

The rooms are retrieval, zero_shot, probe (few labels), prompt_learning and report.
Read `run.py` first: which task fits which data.
"""
