"""Captions of labels: the words of CLEFT, the marks in a sentence, and templates of one's own."""

from pathlib import Path
from typing import Any

import pytest

from biomedclip_jax.data.labelled.captions import Empty, one_sentence, packaged_captions, plain_words, read_captions
from biomedclip_jax.errors import UserError

BREAST = "this is a breast 2d full field digital"
MAMMOGRAM: dict[str, Any] = {
    "StudyDescription": "MG Screening Bilateral w/CAD",
    "FinalImageType": "2D",
    "ImageLateralityFinal": "L",
    "ViewPosition": "MLO",
    "tissueden": "3.0",  # as pandas writes a column with empty cells
    "asses": "S",
    "age_at_study": "63.4182",
    "RACE_DESC": "African American  or Black",
    "ETHNIC_GROUP_DESC": "Unreported, Unknown, Unavailable",
}


def embed(style: str, **change: str) -> str:
    return packaged_captions("embed").style(style).fill(MAMMOGRAM | change)


def test_chexperts_positive_findings_only() -> None:
    caption = packaged_captions("chexpert").style("default")
    row = {"Edema": "1.0", "Cardiomegaly": "-1.0", "Pleural Effusion": "1.0", "Fracture": "0.0", "Lung Opacity": ""}
    start = "this is a chest x ray of a patient with"
    assert caption.fill(row) == f"{start} edema pleural effusion"
    assert caption.fill({"No Finding": "1.0", "Support Devices": "1"}) == f"{start} support devices no finding"
    assert caption.fill({"Edema": "-1.0"}) == start  # as released
    assert len(caption.columns) == 14 and caption.columns[-1] == "No Finding"
    assert packaged_captions("chexpert").style("names").fill(row) == "edema pleural effusion"
    with pytest.raises(Empty, match="findings"):
        packaged_captions("chexpert").style("names").fill({"Edema": "-1.0"})


def test_rsna() -> None:
    captions = packaged_captions("rsna")
    assert captions.style("default").fill({"Target": "0"}) == "this is a chest x ray of a patient with no findings"
    assert captions.style("default").fill({"Target": "1"}).endswith("a patient with pneumonia")
    assert captions.style("released").fill({"Target": "1"}).endswith("a patient with pneumothorax")


def test_embeds_four_styles() -> None:
    """Word by word what the released code makes of such a row, put together by hand from its constants."""
    ends = "with breast tissue density 3 heterogeneously dense with birads score 4 suspicious abnormality"
    assert embed("default") == f"{BREAST} mammogram of a patient on side left with view mlo {ends}"
    assert embed("simple") == f"{BREAST} mammogram of a patient {ends}"
    patient = "this patient is african american or black non hispanic or latino and 63 years old"
    breast = "the breast is heterogeneously dense this may lower the sensitivity of mammography"
    found = "the mammogram shows that a suspicious abnormality is present"
    impressions = "impressions bi rads category 4 suspicious abnormality"
    assert embed("natural") == (
        f"{BREAST} screening mammogram of a patient {patient} this mammogram is for left breast with mlo view {breast} {found} "
        f"{impressions}"
    )
    assert embed("structural") == (
        f"procedure reported mg screening bilateral w cad reason for procedure screening patient info {patient} image info "
        f"this is a 2d full field digital mammogram of the left breast with mlo view breast composition {breast} "
        f"findings {found} {impressions} overall assessment suspicious abnormality"
    )


def test_what_a_row_does_not_say() -> None:
    """Left out, called unknown, or no caption, as each style has it."""
    assert embed("default", ImageLateralityFinal="", ViewPosition="").startswith(f"{BREAST} mammogram of a patient with breast")
    assert "for unknown breast with cc view" in embed("natural", ImageLateralityFinal="", ViewPosition="CC")
    assert "patient is unknown hispanic or latino and unknown years" in embed(
        "natural", RACE_DESC="", age_at_study="nan", ETHNIC_GROUP_DESC="Hispanic or Latino"
    )
    assert f"{BREAST} mammogram of" in embed("natural", StudyDescription="MG Tomo")
    for style, column, field in (
        ("default", "tissueden", "density"),
        ("simple", "asses", "birads"),
        ("natural", "asses", "mass"),
        ("structural", "StudyDescription", "procedure"),
    ):
        with pytest.raises(Empty, match=field):
            embed(style, **{column: ""})
    with pytest.raises(Empty, match="reason"):
        embed("structural", StudyDescription="MG Tomo")
    with pytest.raises(Empty, match="birads"):
        embed("simple", asses="X")


def test_masses_and_calcifications_that_both_columns_describe() -> None:
    assert "the mass is oval and high density a grouped amorphous calcification is present" in embed(
        "natural", massshape="Oval", massdens="High density", calcfind="Amorphous", calcdistri="Grouped"
    )
    assert "the mass" not in embed("natural", massshape="Oval", massdens="").replace("the mammogram", "")


def test_labels_are_the_classes_of_the_benchmarks() -> None:
    captions = packaged_captions("embed")
    letters = [captions.label("birads").fill({"asses": letter}) for letter in "ANBPSMK"]
    assert letters[0] == "0: additional imaging required" and letters[6] == "6: known biopsy-proven malignancy"
    assert captions.label("density").fill({"tissueden": "4.0"}) == "4: extremely dense"
    with pytest.raises(Empty):
        captions.label("density").fill({"tissueden": "5"})  # men
    assert embed("simple", tissueden="5").endswith("density 5 normal male dense with birads score 4 suspicious abnormality")


def test_plain_words() -> None:
    assert plain_words("Grade 2. X-ray: 3 µm caf\u00e9_au lait") == "grade x ray 3 m caf_au lait"


def test_a_sentence_of_ones_own() -> None:
    sentence = one_sentence("A {kind|plain} film[, {view} view], of {finding}.")
    assert sentence.columns == ("kind", "view", "finding")
    assert sentence.fill({"kind": "", "view": "AP", "finding": "Edema [mild]"}) == "A plain film, AP view, of Edema [mild]."
    assert sentence.fill({"kind": "chest", "view": None, "finding": "{x}"}) == "A chest film, of {x}."
    for text in ("no mark", "{open", "{a} [", "[{a} [{b}]]"):
        with pytest.raises(UserError, match="template: "):
            one_sentence(text)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "words.toml"
    path.write_text(
        'plain = true\n[styles]\ndefault = "{organ} on CT with {findings}"\n[labels]\norgan = "{organ}"\n'
        '[fields]\norgan = {column = "site", words = {1 = "Liver"}, otherwise = "Organ"}\n'
        'findings = {positive = ["A b", "C"]}\n'
    )
    captions = read_captions(path)
    assert captions.style("default").fill({"site": 1, "A b": 1, "C": 1.0}) == "liver on ct with a b c"
    assert captions.label("organ").fill({"site": "2"}) == "Organ" and captions.style("default").columns == ("site", "A b", "C")
    with pytest.raises(UserError, match=r"words\.toml: no style 'x'; there are: default"):
        captions.style("x")
    for text, message in (
        ("styles = 3", "expected .styles., and perhaps"),
        ("[styles", "not TOML"),
        ('[styles]\na = "{x}"\n[fields]\nx = {colum = "y"}', "field 'x'"),
        ('[styles]\na = "{x}"\n[fields]\nx = {words = {a = "b"}}', "field 'x': expected either column"),
        ('[styles]\na = "{x}"\n[fields]\nx = {column = "y", words = {a = 1}}', "texts as words"),
        ('[styles]\na = "x"', "a: 'x': expected a sentence"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            read_captions(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_captions(tmp_path / "none.toml")
