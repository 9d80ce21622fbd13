"""Licences as addresses, codes and statements name them."""

import pytest

from biomedclip_jax.data.pmc.jats.licences import license_code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        # addresses
        ("http://creativecommons.org/licenses/by/4.0/", "CC BY"),
        ("https://creativecommons.org/licenses/by/2.0", "CC BY"),
        ("https://creativecommons.org/licenses/by/3.0/igo/legalcode", "CC BY"),
        ("http://www.creativecommons.org/licences/by-sa/3.0/de/deed.en", "CC BY-SA"),
        ("//creativecommons.org/licenses/by-nd/4.0", "CC BY-ND"),
        ("http://creativecommons.org/licenses/by-nc/2.0/uk/", "CC BY-NC"),
        ("http://creativecommons.org/licenses/by-nc-sa/3.0/", "CC BY-NC-SA"),
        ("HTTPS://CreativeCommons.org/licenses/BY-NC-ND/4.0/", "CC BY-NC-ND"),
        ("http://creativecommons.org/licenses/by-nd-nc/1.0/", "CC BY-NC-ND"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "public domain"),
        ("http://creativecommons.org/licenses/nc-sampling+/1.0/", None),
        ("http://creativecommons.org/licenses/by-nc-sampling/1.0/", None),
        ("http://creativecommons.org/", None),
        ("http://www.elsevier.com/open-access/userlicense/1.0/", None),
        ("http://www.elsevier.com/tdm/userlicense/1.0/", "TDM"),
        ("http://doi.wiley.com/10.1002/tdm_license_1.1", "TDM"),
        # codes of metadata, however spelled
        ("CC BY", "CC BY"),
        ("CC-BY", "CC BY"),
        ("CCBY", "CC BY"),
        ("cc by 4.0", "CC BY"),
        ("CC BY-NC-ND", "CC BY-NC-ND"),
        ("cc-by-nc-sa-4.0", "CC BY-NC-SA"),
        ("CC_BY_NC", "CC BY-NC"),
        ("CC BY\u2011ND", "CC BY-ND"),
        ("CC BY SA", "CC BY-SA"),
        ("by-nc", "CC BY-NC"),
        ("CC0", "CC0"),
        ("cc0-1.0", "CC0"),
        ("CC 0", "CC0"),
        ("TDM", "TDM"),
        ("NO-CC CODE", None),
        ("none", None),
        ("", None),
        (None, None),
        # statements
        ("the terms of the Creative Commons Attribution License, which permits unrestricted use", "CC BY"),
        ("Creative Commons Attribution 4.0 International License", "CC BY"),
        ("the Creative Commons Attribution Non Commercial License", "CC BY-NC"),
        ("a Creative Commons Attribution-NonCommercial-NoDerivs 3.0 Unported License", "CC BY-NC-ND"),
        ("Creative Commons Attribution\u2013Noncommercial\u2013No Derivative Works", "CC BY-NC-ND"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0", "CC BY-NC-SA"),
        ("Creative Commons Attribution Share Alike", "CC BY-SA"),
        ("the Creative Commons Attribution\u00a0Non\u00a0Commercial (CC BY-NC 4.0) license", "CC BY-NC"),
        ("made available under a CC-BY-NC-ND 4.0 International license", "CC BY-NC-ND"),
        ("under the Creative Commons CC0 public domain dedication", "CC0"),
        ("the terms of the Creative Commons Public Domain declaration", "CC0"),
        ("This file is available for text mining. It may also be used consistent with fair use", "TDM"),
        ("a Creative Commons license chosen by the authors", None),
        # nobody's rights
        ("This is an Open Access article in the public domain. Works of the US government.", "public domain"),
        ("This article is a U.S. Government work and is in the public domain in the USA.", "public domain"),
        ("a work of the United States Government", "public domain"),
        ("US government work", "public domain"),
        ("an open-access article, free of all copyright, and may be freely reproduced", "public domain"),
        ("Public Domain", "public domain"),
        ("public-domain", "public domain"),
        ("PD", "public domain"),
        ("PDM 1.0", "public domain"),
        ("This article is not in the public domain", None),
        ("The views are not those of the US government. All rights reserved.", None),
        ("supported by the US Government. All rights reserved.", None),
        ("a study of attribution, by all means", None),
        ("All rights reserved.", None),
        # an address counts before words, the first before others
        ("Creative Commons Attribution License (http://creativecommons.org/licenses/by-nc/3.0)", "CC BY-NC"),
        ("a CC BY 4.0 license. The Creative Commons Public Domain Dedication waiver applies to the data", "CC BY"),
        # contradictions are read as the stricter
        ("the Creative Commons Attribution License, which permits non-commercial use", "CC BY-NC"),
        ("the Creative Commons Attribution License (CC BY-ND)", "CC BY-ND"),
        ("the Creative Commons Attribution License, for commercial and non-commercial purposes", "CC BY"),
        ("Panel B is not covered by the CC BY 4.0 licence", None),
        ("All but Figure 3 (not ours). Licensed under CC BY 4.0", "CC BY"),
    ],
)
def test_license_code(text: str | None, code: str | None) -> None:
    assert license_code(text) == code


def test_codes_are_read_back_as_themselves() -> None:
    for code in ("CC0", "CC BY", "CC BY-SA", "CC BY-ND", "CC BY-NC", "CC BY-NC-SA", "CC BY-NC-ND", "TDM", "public domain"):
        assert license_code(code) == code
