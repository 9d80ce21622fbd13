"""The type of a figure from its caption: hand-written captions of every type, look-alikes, and the speed."""

import timeit

import pytest
from helpers.jats_writer import truth_of
from helpers.written_articles import ARTICLES

from biomedclip_jax.data.pmc.figure_types import MIXED, UNKNOWN, all_types, figure_type, figure_types, type_named
from biomedclip_jax.errors import UserError

CAPTIONS = {
    "Chest X-ray showing bilateral hilar lymphadenopathy.": "X-ray",
    "Posteroanterior chest radiograph of a 54-year-old man.": "X-ray",
    "Axial contrast-enhanced CT scan of the abdomen showing a hypodense lesion in the liver (arrow).": "CT",
    "High-resolution computed tomography of the chest with ground-glass opacities.": "CT",
    "T2-weighted MRI of the brain, axial view, showing a hyperintense lesion.": "MR",
    "Sagittal magnetic resonance imaging of the lumbar spine.": "MR",
    "Transthoracic echocardiogram, apical four-chamber view.": "ultrasound",
    "Abdominal ultrasound demonstrating gallstones.": "ultrasound",
    "Coronary angiography demonstrating occlusion of the left anterior descending artery.": "angiography",
    "CT angiography showing a pulmonary embolism.": "angiography",
    "18F-FDG PET/CT showing uptake in mediastinal nodes.": "nuclear medicine",
    "FDG-PET scan of the whole body.": "nuclear medicine",
    "Colonoscopy revealed a polypoid mass in the sigmoid colon.": "endoscopy",
    "Endoscopic view of the ulcer.": "endoscopy",
    "Clinical photograph of the patient showing facial swelling.": "photo",
    "Fundus photograph of the right eye.": "photo",
    "Gross specimen of the resected tumor.": "photo",
    "Erythematous papules on the trunk; dermoscopy shows a pigment network.": "photo",
    "12-lead ECG showing ST elevation in leads II, III and aVF.": "unknown",
    "EEG recording showing generalized spike-and-wave discharges.": "unknown",
    "Histopathology: H&E staining, original magnification ×400.": "light microscopy",  # noqa: RUF001
    "Hematoxylin and eosin-stained section showing invasive ductal carcinoma.": "light microscopy",
    "Immunohistochemical staining for CD20 (×200).": "light microscopy",  # noqa: RUF001
    "Scanning electron micrographs of the biofilm.": "electron microscopy",
    "TEM images of gold nanoparticles. Scale bar, 50 nm.": "electron microscopy",
    "Confocal images of HeLa cells stained with DAPI (blue) and anti-tubulin. Scale bar, 10 µm.": "fluorescence microscopy",
    "Immunofluorescence of kidney sections.": "fluorescence microscopy",
    "Three-dimensional reconstruction of the skull.": "3D",
    "Crystal structure of the kinase domain bound to ATP (PDB 1ATP).": "3D",
    "Ribbon diagram of the protein.": "3D",
    "Table of primers used in this study.": "unknown",
    "Western blot analysis of p53 and β-actin in cell lysates.": "gel",
    "SDS-PAGE of purified protein. Lane 1, marker; lane 2, eluate.": "gel",
    "Agarose gel electrophoresis of PCR products.": "gel",
    "HPLC chromatogram of the extract.": "chart",
    "Multiple sequence alignment of the SH3 domains.": "gene sequence",
    "Sanger sequencing chromatograms showing the c.35delG mutation.": "gene sequence",
    "Chemical structures of compounds 1–5.": "chemical structure",  # noqa: RUF001
    "PRISMA flow diagram of study selection.": "flowchart",
    "Flowchart of patient enrolment.": "flowchart",
    "Schematic diagram of the experimental design.": "diagram",
    "Schematic illustration of the signaling pathway.": "diagram",
    "Screenshot of the web interface.": "screenshot",
    "Pseudocode of the algorithm.": "unknown",
    "Kaplan-Meier survival curves for patients with high and low expression (log-rank p = 0.03).": "chart",
    "ROC curves of the three models.": "chart",
    "Bar chart of mean values ± SD (n = 6). *P < 0.05.": "chart",
    "Phylogenetic tree inferred by maximum likelihood.": "chart",
    "Relative mRNA expression determined by qRT-PCR. CT values were normalized to GAPDH.": "chart",
    "Photograph of the experimental apparatus.": "photo",
    "Hand-drawn sketch of the anatomy.": "diagram",
    "Genotype distribution for CC, CT and TT carriers.": "chart",
    "Table 1 shows the results; see Table S2.": "unknown",
    "Patient outcome after graph theory analysis.": "unknown",
    "Distribution of plots of land. X-ray diffraction patterns of the samples.": "chart",
    "Cells (CT26) were injected.": "unknown",
    "Growth of the plants on each experimental plot.": "unknown",
    "Map showing the location of the study area in northern Ethiopia.": "unknown",
    "The equation for the growth model.": "unknown",
    "Doppler ultrasound of the portal vein.": "ultrasound",
    "Panoramic radiograph showing an impacted third molar.": "X-ray",
    "Optical coherence tomography image of the macula.": "OCT",
    "Bone marrow smear with blasts (Wright-Giemsa stain).": "light microscopy",
    "Flow cytometry dot plots of CD4+ T cells.": "chart",
    "Cryo-EM density map of the complex.": "3D",
    "Intraoperative photograph showing the mass.": "photo",
    "Photomicrograph of a Gram-stained smear.": "light microscopy",
    "SPECT/CT fusion images.": "nuclear medicine",
    "Cone beam CT of the mandible.": "CT",
    "MR angiography of the circle of Willis.": "angiography",
    "Volcano plot of differentially expressed genes.": "chart",
    "Heat map of gene expression.": "chart",
    "Forest plot of odds ratios.": "chart",
    "NMR spectrum of compound 3.": "chart",
    "Scanning electron microscope photographs of the enamel.": "electron microscopy",
    "Arthroscopic photograph of the torn meniscus.": "endoscopy",
    "SEM photomicrograph of the fibres.": "electron microscopy",
    "CT urography showing a duplicated ureter.": "CT",
    "Slit-lamp photos of both eyes.": "photo",
}


PICTURE_ONLY = {"table", "formula", "program listing", "map", "ECG", "EEG", "EMG"}


def test_the_taxonomy_is_whole() -> None:
    """Each of ImageCLEF's 30 types is in one of these, and each type has a sentence of its own for models."""
    types = all_types()
    codes = [code for entry in types for code in entry.codes]
    assert len(codes) == 30 == len(set(codes))
    assert {entry.name for entry in types if not entry.in_captions} == PICTURE_ONLY
    assert {entry.name for entry in types if not entry.codes} == {"OCT", "map"}, "added here"
    assert len({entry.prompt for entry in types}) == len({entry.name for entry in types}) == len(types)
    assert all(entry.prompt.endswith(".") for entry in types)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_the_type_that_a_caption_names(caption: str) -> None:
    assert figure_type(caption) == CAPTIONS[caption], figure_types(caption)


def test_every_type_that_captions_tell_has_a_caption_here() -> None:
    assert {entry.name for entry in all_types() if entry.in_captions} == set(CAPTIONS.values()) - {UNKNOWN}


@pytest.mark.parametrize(
    ("caption", "types"),
    [
        ("Western blot of p53 (top). Bar graph of the band intensities, mean ± SD. Scale bar, 10 µm.", ("chart", "gel")),
        ("(A) Axial CT scan. (B) T2-weighted MRI of the same lesion.", ("MR", "CT")),
        ("A, photograph of the skull; B, radiograph; C, interpretive drawing.", ("X-ray", "photo", "diagram")),
        ("(a) Confocal images of neurons. (b) Quantification of puncta. *p < 0.05.", ("fluorescence microscopy", "chart")),
        ("Volume rendering of a CT scan of the jaw.", ("CT", "3D")),
        ("Fundus photo, and OCT of the same eye.", ("OCT", "photo")),
    ],
)
def test_a_figure_of_several_types_is_mixed(caption: str, types: tuple[str, ...]) -> None:
    assert figure_types(caption) == types
    assert figure_type(caption) == MIXED


@pytest.mark.parametrize(
    ("caption", "type_"),
    [
        ("CT of the patient.", "CT"),
        ("The patient's MRI.", "MR"),
        ("Differences between CT and MRI.", UNKNOWN),  # hints at two
        ("Distribution of the number of visits.", "chart"),
        ("Number of visits.", UNKNOWN),  # one word of statistics is none
        ("Significant differences in activation, axial slices, p < 0.05.", UNKNOWN),  # statistics on a picture
        ("Levels of the protein after MRI; median of six animals.", UNKNOWN),
    ],
)
def test_hints_count_where_nothing_is_named(caption: str, type_: str) -> None:
    assert figure_type(caption) == type_, figure_types(caption)


def test_nothing_is_told_from_nothing() -> None:
    assert figure_types("") == () and figure_type("") == UNKNOWN


@pytest.mark.parametrize(
    ("caption", "type_"),
    [
        ("Ct values of the samples", "CT"),
        ("CT values of the samples", "CT"),
        ("CT26 and CTCF were measured", "CT"),
        ("Stapler of a company in Norwalk, CT", "CT"),
        ("CT-guided biopsy", "CT"),
        ("the mr locus", "MR"),
        ("PET bottles in the sea", "nuclear medicine"),
        ("a stem cell", "electron microscopy"),
        ("data are mean and SEM of three animals", "electron microscopy"),
        ("X-ray crystallography", "X-ray"),
        ("The gel was exposed to X-ray film for an hour", "X-ray"),
        ("graph theory", "chart"),
        ("the map shows the number and the rate of cases", "chart"),
        ("two minutes of photo-activation", "photo"),
        ("a tall, marfanoid habit", "photo"),
        ("photo-GLP1 was added", "photo"),
        ("alignment of the cervical spine", "gene sequence"),
        ("a histological grade of two", "light microscopy"),
        ("cells that express GFP", "fluorescence microscopy"),
        ("the gel filtration column", "gel"),
        ("as illustrated above", "diagram"),
        ("the conduction pathway and its mechanism", "diagram"),
        ("docking of the ship", "3D"),
        ("the clinical picture was unclear", "photo"),
        ("ultrasound-guided injection", "ultrasound"),
    ],
)
def test_words_that_look_like_a_type(caption: str, type_: str) -> None:
    assert type_ not in figure_types(caption)


def test_plural_case_and_hyphens_do_not_matter() -> None:
    for caption in ("X-rays", "chest X-RAY", "Chest x ray", "CHEST X-RAYS"):
        assert figure_type(caption) == "X-ray", caption
    assert figure_type("CTs of the chest") == figure_type("CT scans") == "CT"
    assert figure_type("photographs") == figure_type("photograph") == "photo"


def test_names_and_codes() -> None:
    assert type_named("ct") == type_named("DRCT") == "CT"
    assert type_named("Light Microscopy") == "light microscopy"
    assert type_named("DMEL") == type_named("DMTR") == "electron microscopy"
    assert type_named("unknown") == UNKNOWN and type_named("Mixed") == MIXED
    for name in ("graph", "table", "GTAB", "map"):
        with pytest.raises(UserError, match=f"'{name}': not one that captions tell; expected one of ultrasound, MR"):
            type_named(name)


def test_captions_of_written_articles() -> None:
    """Captions of usual length, with statistics and abbreviations: the type is what is drawn, or nothing is certain."""
    captions = {(article.id, f["index"]): f["caption"] or "" for article in ARTICLES for f in truth_of(article)["figures"]}
    for key, name in {
        ("PMC99000001.1", 0): "mixed",
        ("PMC99000001.1", 1): "unknown",
        ("PMC99000002.2", 0): "diagram",
        ("PMC99000002.2", 2): "chart",
        ("PMC99000003.3", 4): "light microscopy",
        ("PMC99000004.2", 7): "diagram",
        ("PMC99000004.2", 8): "unknown",
        ("PMC99000005.1", 0): "flowchart",
        ("PMC99000005.1", 3): "chart",
        ("PMC99000006.1", 0): "gel",
        ("PMC99000006.1", 1): "fluorescence microscopy",
        ("PMC99000006.1", 3): "unknown",
        ("PMC99000006.1", 4): "fluorescence microscopy",
        ("PMC99000008.1", 0): "CT",
        ("PMC99000008.1", 2): "ultrasound",
        ("PMC99000008.1", 3): "endoscopy",
        ("PMC99000009.1", 0): "photo",
        ("PMC99000009.1", 4): "light microscopy",
    }.items():
        assert figure_type(captions[key]) == name, key
    texts = list(captions.values())
    seconds = min(timeit.repeat(lambda: [figure_type(text) for text in texts], number=1, repeat=5)) / len(texts)
    assert seconds < 0.5e-3, "0.06 ms on a machine at rest"
