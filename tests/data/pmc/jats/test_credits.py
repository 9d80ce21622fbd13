"""What captions say of whose figure it is. All sentences are made up."""

# ruff: noqa: RUF001 -- dashes, primes and Greek letters are meant

import time

import pytest

from biomedclip_jax.data.pmc.jats._credits import taken_from
from biomedclip_jax.data.pmc.jats.licences import license_code

# fmt: off
TAKEN_OVER = [
    'Chest radiograph with effusion. Reproduced with permission from Elsevier, 2015.',
    'Brain MRI, normal. Reprinted with permission from Springer Nature.',
    'Anatomy of the knee. Adapted from [12] with permission.',
    'The pathway (adapted from Smith et al., 2010).',
    'Modified from Rogers et al., 2013: fig. 1.',
    'Redrawn after Smith and Jones (1999).',
    '© 2012 Elsevier. All rights reserved.',
    'Copyright 2012 Elsevier',
    'Image copyright Zeiss.',
    'Courtesy of Dr. J. Smith, University Hospital.',
    'Photos are courtesy of Jarone Pinhassi.',
    'MRI of the brain, courtesy of A. Jones.',
    'Image courtesy: NASA',
    'From [3], with permission.',
    'From Smith J, et al. Radiology 2010;200:1–5, used with permission.',
    'Used with permission of Mayo Foundation for Medical Education and Research.',
    '(c) 2010 Elsevier',
    'Reproduced from reference 12.',
    'Reproduced from [ [12] ] .',
    'Reprinted from Lancet, Vol 3, Smith, Title, 1-3, Copyright (2005), with permission from Elsevier.',
    'Used under license from Shutterstock.com',
    'Image used under licence.',
    'This figure has been adapted from Jones and colleagues with the permission of the publisher.',
    'Permission to reproduce this figure was obtained from Wiley.',
    'Figure reproduced by kind permission of the Royal College of Radiologists.',
    'Reprinted by permission from Macmillan Publishers Ltd: Nature (Smith 2001), copyright 2001.',
    'Republished with permission of Dove Medical Press.',
    'Adapted with permission from [7].',
    'Adapted, with permission, from Smith et al.',
    'Illustration by Kirsten Carlson, © MBARI 2001.',
    'Diagram modified from [1: fig. 10] and [55: 7.6] .',
    'Schematic modified with permission from Nature Reviews.',
    'Reproduzido com permissão de Elsevier.',
    'Taken from [ 12 ].',
    "Adapted from Gray's Anatomy.",
    'Image from the Visible Human Project, with permission.',
    'Printed with permission from Mount Sinai Health System.',
    'Source: WHO. All rights reserved.',
    'Reproduced under licence from the Ordnance Survey.',
    'Figure 1 in Smith et al. (2001), reproduced with kind permission from Springer Science + Business Media.',
    'Adapted from Figure 2 of Smith 2010.',
    'Adapted from ref. 5.',
    'Adapted from "Signal Pathway", by BioRender.com (2021).',
]
OURS = [
    'Written permission was obtained from the patient for publication of this image.',
    'Informed consent was obtained from the patient.',
    'Photograph of the hand, published with permission of the patient.',
    "Image used with the permission of the patient's parents.",
    'Written informed permission for publication was given by the family.',
    "Image courtesy of the authors' own collection.",
    'Images courtesy of the authors.',
    'Cells adapted from mice.',
    'Enzyme adapted from mice to rats.',
    'Light-adapted and dark-adapted retinae from mice.',
    'The protocol was adapted from [12].',
    'Scoring method modified from Smith et al. (2010).',
    'Data taken from [5].',
    'Images taken from three mice.',
    'Measurements of Darwinius were taken from plate A (Fig. 1).',
    'A sequence of still images taken from an overhead tail-slap hunting event.',
    'Plasmid courtesy of Dr. X.',
    '(Experimental data, courtesy: Kumaran Ramamurthi)',
    'Biopsies were taken from the left lobe [12].',
    'The results were reproduced in three independent experiments.',
    'Reproduction of the virus. Reproduced results from three mice.',
    'Samples were collected with permission of the Forestry Department.',
    'Experiments performed under Home Office licence 70/1234.',
    '(C) 2012 patients were included.',
    '(a) Before; (b) after; (c) 2010 data.',
    'Chest CT adapted to the window of the lung.',
    'Post-translationally modified proteins from cells.',
    'Genetically modified mice from Jackson Laboratory.',
    'Permission for the study was granted by the ethics committee.',
    '© The Authors 2020.',
    '© 2020 by the authors.',
    'Copyright by the authors.',
    'The licensed vaccine was injected.',
    'Published with permission from the patient.',
    'With permission from the patient, the face is shown.',
    'Image shown with consent. Permission was obtained from her parents.',
    'HEK cells were modified to express GFP from Smith et al.',
    'Sections taken from Figure 1.',
    'Sequences were derived from [7].',
    'Frames extracted from Video 1.',
    "Reproduced with the patient's permission.",
    "Dr. Smith's modified Rankin scale from 0 to 5.",
    'Culture-adapted isolates from Kenya.',
    'Images reproduced at the same scale.',
]
# fmt: on


@pytest.mark.parametrize("caption", TAKEN_OVER)
def test_taken_over(caption: str) -> None:
    assert taken_from(caption)
    assert taken_from(f"(A) Chest CT of a patient. {caption} Scale bar: 5 mm.")


@pytest.mark.parametrize("caption", OURS)
def test_not_taken_over(caption: str) -> None:
    assert taken_from(caption) is None
    assert taken_from(f"(A) Chest CT of a patient. {caption} Scale bar: 5 mm.") is None


def test_the_statement_is_the_sentence() -> None:
    assert taken_from("Chest CT. Adapted from [3]. Bar: 5 mm.") == "Adapted from [3]. Bar: 5 mm."
    assert len(taken_from("© Elsevier " + "x" * 1_000) or "") <= 300


def test_of_several_statements_the_one_without_a_licence_counts() -> None:
    free, owned = "A, adapted from [3] under CC BY 4.0.", "B, reprinted with permission from Elsevier."
    assert license_code(taken_from(free)) == "CC BY"
    for caption in (f"{free} {owned}", f"{owned} {free}"):
        assert license_code(taken_from(caption)) is None


def test_long_captions_in_time() -> None:
    start = time.perf_counter()
    for words in (
        "with permission ",
        "adapted from the ",
        "© ",
        "courtesy ",
        "used under ",
        "Adapted from A and ",
        "(c) 2010 ",
    ):
        taken_from(words * 5_000)
    assert time.perf_counter() - start < 20, "1 s on a machine at rest"
