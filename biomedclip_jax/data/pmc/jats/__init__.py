"""The XML of an article to its figures and what it says of them.

In: the bytes of a JATS article, whatever its DTD. Out: `Article` (article.py, read it first). `safe_xml` reads it,
`parse` finds figures, `_captions` what is said of them, `_mentions` where, `_credits` whose they are, `_front` ids,
title and licence. `_text` makes plain text, with `_scripts`, `_math` and `_tex` for what is not on the line.
`licences` knows the codes of licences, `figure_files` tells which file a figure names.
"""
