"""What captions say of whose figure it is. All sentences are made up."""

# ruff: noqa: RUF001 -- dashes, primes and Greek letters are meant

import time

import pytest

from biomedclip_jax.data.pmc.jats._credits import taken_from
from biomedclip_jax.data.pmc.jats.licences import license_code

# fmt: off
TAKEN_OVER = [
    'Modified from Ref. 12.',
    'Taken from reference 7.',
    'Previously published in Nature.',
    'This figure has been published previously in [4].',
    'The image was originally published in the Journal of Anatomy.',
    'Map of the area; image: J. Doe, Wikimedia Commons.',
    'Radiograph downloaded from Radiopaedia.org.',
    'Photo: NASA©.',
    'Copyright retained by Elsevier.',
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
    'Adapted from Servier Medical Art (CC BY 3.0).',
    'Figure reproduced from our previous work [12].',
    'Photograph by J. Smith, used with permission.',
    'Reprinted from (12) with permission.',
    'Adapted with permission from the copyright holder.',
    'The figure is adapted from (Smith 2010).',
    'Reproduced with the permission of John Wiley and Sons.',
    'Reproduced from Smith (2010) with permission.',
    'Copyright © 2014 American Chemical Society.',
    'Copyright: Massachusetts Medical Society.',
    'Modified, with permission, from Jones.',
    'Redrawn with permission from ref 5.',
    'By permission of Oxford University Press.',
    'Permission granted by Elsevier.',
    'Image reprinted with the permission of the American Journal of Roentgenology.',
    '(Courtesy of the Department of Radiology, University of Basel.)',
    'Image provided courtesy of Siemens Healthineers.',
    'Figure used under license from Elsevier (license number 123).',
    'This figure was originally published in Blood. Smith J. Title. Blood. 2010. © the American Society of Hematology.',
    'Adapted from: Smith J, Jones B. Title. Journal. 2010;1:2.',
    'Reprinted with permission.',
    'Reproduced with permission.',
    'Adapted with permission.',
    '© Elsevier.',
    'Used by permission.',
    'From Smith et al. [12] with permission from the publisher.',
    'Adapted from reference [12]',
    'Reprinted by permission of the publisher',
    'Modified after Brown et al. (1998).',
    'Fig. 2 is reproduced from a previous publication (Smith, 2005).',
    '© 2012 Elsevier',
]
OURS = [
    'BALB/c mice were obtained courtesy of the Jackson Laboratory.',
    'The copyright of the figure belongs to the authors.',
    'Copyright is held by the authors.',
    'Analysed with GraphPad Prism© software.',
    'Drawn using Prism©.',
    'MRI images taken from [Patient 2].',
    'Data previously published in [5] are shown in grey.',
    'This figure was originally published by the authors.',
    'Articles already published in 2010.',
    'Information on the region from Wikipedia.',
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
    'Written informed consent and permission to publish was obtained.',
    'Written permission was obtained.',
    'Published with patient permission.',
    'The patient gave permission to publish the images.',
    'Permission was granted by the patient to reproduce this photo.',
    'Written permission / informed consent was obtained from the patient.',
    "With the parents' permission, photographs were taken.",
    'Images obtained with permission of the institutional review board.',
    "Image courtesy of the authors' own archive.",
    'Images courtesy of our own department.',
    'Courtesy of the corresponding author.',
    'Created with BioRender.com.',
    'Mice adapted from the wild.',
    'Muscle fibers adapted from training.',
    'Cells were reprinted on glass.',
    'Cold-adapted vaccine from eggs.',
    'Patients on a modified diet from birth.',
    'The patient consented; permission from the patient was documented.',
    'A modified Look-Locker sequence from Siemens.',
    'Reproduced in three independent experiments from two labs.',
    'Plants were grown under license from the ministry.',
    'Written consent for use of this image was given by the patient.',
    'The (C) terminal domain.',
    'Adapted electrode from patient 3.',
    'Blood taken from patient 12.',
    'The authors hold the copyright.',
    'Copyright of the authors.',
    'Drawn from life by the first author.',
    'Consent and permission for publication was obtained from the legal guardians.',
    'Permission for use of the image has been obtained from the individual shown.',
    'Photo taken with permission from the subject.',
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
        "published in ",
    ):
        taken_from(words * 5_000)
    assert time.perf_counter() - start < 20, "1 s on a machine at rest"
