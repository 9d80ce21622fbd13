"""Images that may have several findings: each finding is a question of its own, asked with words or learned.

In: `MultiLabelled`. Out: `Result`s. `zero_shot` asks with sentences, `probe` learns from labels, `_numbers` measures.
"""
