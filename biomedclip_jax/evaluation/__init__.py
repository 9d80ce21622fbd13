"""How good a model is: models and data go in; results with intervals, tables and pictures come out.

The rooms are retrieval, zero_shot, probe (few labels), prompt_learning (few labels, too) and report.
Read `run.py` first, which says which task fits which data, then `_evaluation.py`, what each task is given.
"""
