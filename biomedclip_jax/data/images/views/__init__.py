"""Files that hold many images: frames of DICOM, TIFF and GIF, series of DICOM files, slices of NIfTI, tiles of slides.

Read `find` first: it turns files and folders into a list of images, each a `View` that is read when it is asked for.
`_kinds` says what a file is, and `_frames`, `_series`, `_volume`, `_slide` each read one kind.
"""
