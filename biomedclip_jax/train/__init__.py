"""Training: from a `TrainConfig` to a run folder and a finished model folder. Read `_loop.py` first, then `step.py`.

In: a config, and the pairs that `data` reads for it. Out: in the run folder the checkpoints, `metrics.jsonl`,
`rejects.jsonl`, and at the end `model/`, `adapter/` where adapters were trained, pictures and `results.json`.

- `main.py` is a run from its config to its results; `_loop.py` the updates of its stages, with what happens
  between them.
- The update: `step.py` and what it is made of (`_gradient.py`, `optimizer.py`, `text_buckets.py`), on the state
  that `state.py` makes and `_checkpoint.py` keeps. `_frozen.py` says which parameters are not kept.
- Stages that learn of labels: `_prompt_stage.py`.
- What a run says of itself: `_metrics.py`, `flops.py`, `_held_out.py` while it runs, and
  `_final_evaluation.py` at its end.
- `export.py` makes a model of a run. `multihost/` is what several processes need to be one run.

The only room besides `bench` and `planning` that knows the whole: config, data, models, losses and sharding.
"""
