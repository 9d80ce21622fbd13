"""`biomedclip plan`: what a training run needs on machines that you need not have, from compiling its step for them.

Read `plan.py` first. In: a config and the name of a topology (`_topology.py`: chips, their memory and links, from
data sheets). `_lower.py` makes the real training step for devices that are only described (`devices.py`),
`_compiling.py` compiles it, `_hlo.py` reads the collectives from the compiled program, `_estimate.py` turns counts
into bounds of time, `_report.py` says it as text and as JSON. Out: for each stage a `StagePlan`. Nothing is run and
nothing measured.
"""
