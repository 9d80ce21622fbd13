"""What a data set holds, counted: lengths of captions, sizes of images, types of figures, words, licences, years.

In: a build or any other source of pairs. Out: `statistics.json`, PNGs and one HTML page. Read `report` first; `counts`
passes once over the data, `pictures` draws, also the contact sheet of `data preview`.
"""
