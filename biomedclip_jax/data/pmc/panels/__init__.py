"""Experimental: compound figures to their panels, each with its part of the caption.

In: a figure and its caption. Out: `MatchedPanel`s, only where caption and picture agree. Read `compound` first;
`caption_parts` divides the caption, `letters` finds marks in the picture.
"""
