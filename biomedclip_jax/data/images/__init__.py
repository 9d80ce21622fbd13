"""Image files to pixels, as open_clip makes them.

In: paths, bytes, PIL images or arrays; JPEG, PNG, TIFF ... and DICOM. Out: float32 [S, S, 3], normalised; to train on,
uint8. Read `load` first: it decodes; then `preprocess`, for evaluation and for training, and `normalise`. `dicom`
shows DICOM as a viewer does, `crop` is what CLEFT does to films.
"""
