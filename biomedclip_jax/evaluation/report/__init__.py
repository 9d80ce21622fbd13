"""What is written of an evaluation: results.json, tables, pictures, the HTML page and CLIP_benchmark's JSON.

In come `Result`s, out come files. Read `results.py` first.
"""
