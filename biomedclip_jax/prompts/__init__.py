"""What a class is called: sentences from templates, or learned vectors before its name.

Names of classes go in; sentences, token layouts and class embeddings come out. Read `templates.py` first, then
`learned.py`.
"""
