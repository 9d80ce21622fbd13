"""open_clip's model folder. `folder.py` reads and writes it whole, with the names in `mapping.py` and the JSON in `config.py`;
`timm.py` lists the image towers that it builds by name.
"""
