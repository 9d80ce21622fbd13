"""What is known of the quickstart's pictures, and how the demo's questions ask for it."""

from typing import NamedTuple


class Known(NamedTuple):
    """What is known of a whole picture; None is not known, or not asked."""

    modality: str
    organ: str | None = None
    view: str | None = None
    plane: str | None = None


# By the name of the file. Modality, plane and view are as the DICOM headers say (ImageOrientationPatient,
# ViewPosition, SeriesDescription), but for the apical view, which is plain to see. scikit-image says that ihc.png shows
# glands of the colon.
KNOWN = {
    "RG1_UNCR.dcm": Known("x ray", "chest", view="frontal"),
    "RG3_UNCR.dcm": Known("x ray", "leg", view="frontal"),
    "693_UNCR.dcm": Known("ct", "head", plane="axial"),
    "J2K_pixelrep_mismatch.dcm": Known("ct", "head", plane="axial"),
    "explicit_VR-UN.dcm": Known("ct", "abdomen", plane="axial"),
    "CT_small.dcm": Known("ct", "spine", plane="axial"),
    "MR2_UNCR.dcm": Known("mri", "shoulder", plane="coronal"),
    "MR-SIEMENS-DICOM-WithOverlays.dcm": Known("mri", "abdomen", plane="axial"),
    "US1_UNCR.dcm": Known("ultrasound", "lymph node"),
    "gdcm-US-ALOKA-16.dcm": Known("ultrasound", "pelvis"),
    "color3d_jpeg_baseline.dcm": Known("ultrasound", "heart", view="apical"),
    "color-px.dcm": Known("ultrasound", "heart", view="transesophageal"),
    "JPEG2000_UNC.dcm": Known("nuclear medicine"),  # of the whole body, of which a region shows a part
    "retina.jpg": Known("photograph", "eye"),
    "ihc.png": Known("microscopy", "colon"),
}
A_MODALITY = {
    "x ray": "an x-ray",
    "ct": "a ct",
    "mri": "an mri",
    "ultrasound": "an ultrasound",
    "nuclear medicine": "a nuclear medicine scan",
    "photograph": "a photograph",
    "microscopy": "a microscopy picture",
}
# Body parts that hold one another, touch, or may do so: no question sets the one against the other.
TOUCHING = {
    "chest": ("heart", "spine", "shoulder"),
    "abdomen": ("colon", "pelvis", "spine"),
    "pelvis": ("colon", "spine"),
    "head": ("eye",),
    "lymph node": ("chest", "abdomen", "pelvis", "head", "shoulder", "leg", "spine"),
}
ALIKE = (("spine CT", "abdominal CT"), ("lymph node ultrasound", "pelvic ultrasound"))  # the same of kinds of picture
COLOURS = {"retina.jpg": "red", "ihc.png": "brown", "US1_UNCR.dcm": "orange"}  # of what is not gray
FLOWS = ("orange blood flow", "red flow of blood", "blue flow of blood")


class Structure(NamedTuple):
    """Something that a region shows or not.

    marks: the landmarks that show it. unsure: labels of pictures in which it may be where no mark is. near: landmarks
    beside which nobody can say that it is not there.
    """

    marks: tuple[str, ...]
    unsure: tuple[str, ...] = ()
    near: tuple[str, ...] = ()


_SCAN = "bone scintigraphy"
STRUCTURES = {
    "the heart": Structure(
        ("the heart", "the apex of the heart", "a bright heart wall", "a dark heart chamber", "bright echoes at the base"),
        ("spine CT", "abdominal CT", "abdominal MRI", "echocardiogram", _SCAN),
    ),
    "a kidney": Structure(
        ("a kidney", "a bright kidney"),
        ("chest X-ray", "spine CT", "pelvic ultrasound", "lymph node ultrasound", _SCAN),
    ),
    "the cerebellum": Structure(("the cerebellum",), (_SCAN,)),
    "the mastoid": Structure(("air cells of the mastoid",), (_SCAN,)),
    "the skull": Structure(("the bright skull", "thick skull base bone", "the skull"), ("head CT",)),
    "the bladder": Structure(("the black bladder",), ("abdominal CT", "abdominal MRI", _SCAN)),
    "a foot": Structure(("the foot", "a foot"), (), ("the ankle joint",)),
    "the lung": Structure(
        ("the top of the lung", "a rounded mass in the lung", "lung root vessels", "the dark lung"),
        ("chest X-ray", "spine CT", "shoulder MRI", "echocardiogram", _SCAN),
    ),
    "the humerus": Structure(("the head of the humerus", "the shaft of the humerus"), ("chest X-ray", _SCAN)),
    "the tibia": Structure(("the shaft of the tibia",), ("bone X-ray", _SCAN)),
    "a vertebra": Structure(
        ("a lumbar vertebra", "the vertebral body", "the bony vertebral arch", "a vertebra"),
        ("chest X-ray", "head CT", "spine CT", "abdominal CT", "abdominal MRI", _SCAN),
    ),
}

MODALITY = (
    "what modality is this?",
    "which modality was used here?",
    "what kind of picture is this?",
    "how was this picture made?",
    "by which method was this region imaged?",
    "which imaging method do we see here?",
)
ORGAN = (
    "which body part was examined?",
    "what part of the body was examined here?",
    "of which body part is this picture?",
    "which organ or body part is this from?",
    "where in the body is this region from?",
    "what was imaged here, which part of the body?",
)
VIEW = ("which view is this?", "what view is shown here?", "in which view was this picture made?", "what is the view?")
PLANE = (
    "which plane is this slice in?",
    "what is the plane here?",
    "in which plane was this slice made?",
    "what plane is this?",
)
COLOUR = ("which colour stands out?", "what colour do we see here?", "which colour is shown?")
IS_THIS = (
    "is this {}?",
    "is this part of {}?",
    "do we see {} here?",
    "was this cut out of {}?",
    "does this show {}?",
)
IS_FROM = (
    "is this from the {}?",
    "was the {} examined?",
    "is this a picture of the {}?",
    "is the {} what was imaged here?",
    "does this region belong to the {}?",
)
SHOWS = ("is {} visible?", "can {} be seen here?", "does this picture show {}?", "do we see {} in this region?")
