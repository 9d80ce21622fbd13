"""Learning from few labels: linear probes, logistic regression and fine-tuning, over budgets of labels and seeds.

In come labelled images for training and testing; out come `Result`s and learning curves.
Read `task.py` first, then `methods.py`, which says what a method is given and what it gives back.
"""
