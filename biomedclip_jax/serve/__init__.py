"""`biomedclip serve`: a model behind HTTP, for programs (`/classify`, `/embed` ...) and on a page for people.

In: a model, `Settings` and their `Limits` (`settings.py`). Out: answers in JSON, until a signal ends it. Read
`_app.py` first, which has the addresses; `_model.py` is the model whose requests wait together (`_batches.py`) for
programs that were compiled at the start; `_guard.py` stands before all of it and turns away who may not come in,
what is too large and what is too slow; `_server.py` listens.

It needs fastapi, uvicorn, python-multipart and prometheus-client, and gradio for the page: the extra `serve`.
"""
