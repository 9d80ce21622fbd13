"""Several processes, one run: they find each other, watch each other, stop together. Read `hosts.py` first.

- `hosts.py`: joining the run (`start`), waiting for each other (`barrier`), leaving it (`leave`); who speaks
  and writes.
- `_rendezvous.py`: the start-up barrier, which can name who is missing.
- `stopping.py`: SIGTERM as a wish to save and stop; a watchdog that ends a run that stands still, and says who holds
  it up.

In a run of one process all of this does nothing, but for the watchdog and the signals.
"""
