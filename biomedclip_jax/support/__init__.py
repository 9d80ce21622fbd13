"""Small tools that know nothing of images, captions or models, for every other room.

`parallel` runs tasks side by side with their results in order, `terminal` shows progress bars and holds back chatter,
`html` writes one page that holds its own pictures, `xla_cache` keeps compiled programs, `fields` checks every
field of somebody else's JSON, `owner` lets one process at a time write a folder. None of these imports another
room, except `errors` and `files`. Read `parallel` first: most of what waits in this package waits there.
"""
