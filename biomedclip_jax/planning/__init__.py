"""`biomedclip plan`: what a training run needs on machines that you need not have, from compiling its step for them.

Read `plan.py` first. In: a config and the name of a topology (`_topology.py`: chips, their memory and links, from
data sheets). `lower.py` makes the real training step for devices that are only described (`devices.py`),
`_compiling.py` compiles it, `_program.py` reads what it does from its text (`_hlo.py`): its collectives
(`_collectives.py`), and what each instruction moves and computes (`_traffic.py`, `_products.py`). `_floor.py` makes of
these the least time of a step by class of instruction (`_classes.py`), `_estimate.py` what may be expected,
`_report.py` says it as text and as JSON. Out: for each stage a `StagePlan`. Nothing is run and nothing measured.
"""
