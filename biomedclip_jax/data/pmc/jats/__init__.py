"""The XML of an article to its figures and what it says of them.

In: the bytes of a JATS article, whatever its DTD. Out: `Article` (article.py, read it first). `xml` reads safely,
`parse` finds figures and mentions, `front` ids, title and licence, `text` makes plain text, `licences` knows the codes
of licences, `figure_files` tells which file a figure names.
"""
