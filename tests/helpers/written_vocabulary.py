"""A WordPiece vocabulary as large as BiomedBERT's, with its special tokens at the same ids, in words chosen here."""

import json
import string
from pathlib import Path

SIZE = 30_522  # BiomedBERT's
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CHARACTERS = string.punctuation + string.digits + string.ascii_lowercase
_OTHER = (
    "\u03b1\u03b2\u03b3\u03b4\u03b8\u03ba\u03bb\u03bc\u03c4\u00b1\u00b0\u00d7"
    "\u2022\u2032\u2013\u2014\u2019\u201c\u201d\u2026\u2264\u2265\u56fe\u50cf"
)

_COMMON = """
the of and in to with a is for was were by that on as at from are this be or an not which it has than after between
these we both all no also but more had may can their into have been other during using used each one two three four five
six first second third same out there only over under when where who what here before behind most some such then they
its so if do did does see how because while through without within against per about above below left right upper lower
top bottom middle new old large small high low long short early late whole single many few half part parts day days week
weeks month months year years hour hours hr min time times old young male female men women man woman boy girl human
people group groups
"""

_BIOMEDICAL = """
patient patients case cases control controls study studies result results data analysis method methods effect effects
figure fig table image images imaging picture photo photograph view axial coronal sagittal frontal lateral scan scans ct
mri mr pet x ray rays radiograph radiographs ultrasound tomography resonance magnetic contrast weighted dose chest lung
lungs heart brain liver kidney bone skin breast colon stomach eye retina spine skull head neck abdomen pelvis knee hip
hand foot muscle nerve blood vessel artery vein lymph node nodes gland thyroid spleen pancreas bladder prostate ovary
uterus tumor tumors tumour tumours cancer carcinoma glioma meningioma lymphoma melanoma metastasis metastases lesion
lesions mass nodule nodules cyst edema effusion pneumonia fibrosis inflammation infection infiltrate hemorrhage stroke
fracture disease diseases disorder syndrome normal abnormal benign malignant acute chronic severe mild cell cells tissue
tissues section sections stain stained staining hematoxylin eosin antibody antibodies protein proteins gene genes
expression level levels mrna dna rna sequence sequences mutant mutation mutations allele alleles wild type knockout
mouse mice rat rats fish larvae zebrafish bacteria virus viral strain strains culture cultures medium membrane nucleus
nuclei mitochondria receptor kinase enzyme pathway signal signaling blot western gel lane lanes lysates band bands
fluorescence confocal microscopy micrograph magnification bar bars scale arrow arrows arrowhead panel panels plot curve
curves chart graph histogram distribution mean median standard deviation error significant difference differences ratio
risk rate age sex sample samples number numbers value values test tests model models fit slope angle distance speed
light dark lamp eye water sugar temperature weight volume concentration treatment treated therapy surgery drug placebo
response survival diagnosis clinical history physical examination laboratory biopsy histology pathology specimen
resection admission follow up show shows showing shown seen observed found reveal reveals revealed demonstrating
indicate indicates represent compared increased decreased reduced positive negative independent experiments replicate
measured performed collected obtained
"""

_PIECES = """
##s ##es ##ed ##ing ##er ##or ##ion ##ions ##al ##ic ##ical ##ly ##y ##ity ##ment ##ous ##ive ##able ##ase ##oma ##osis
##itis ##emia ##pathy ##graphy ##gram ##graph ##scopy ##scopic ##logy ##logical ##cyte ##cytes ##blast ##genic ##genesis
##plasia ##ectomy ##id ##in ##ine ##ol ##ate ##ation ##um ##us ##a ##an ##ar ##en ##on ##re ##th ##st ##ur ##micro ##lym
##mph ##od ##ph cov opac micro photo cardi neuro hepat nephr derm hist path immun inter intra peri pre post un re dis
hyper hypo multi poly anti
"""


def write_biomedical_vocabulary(folder: Path, size: int = SIZE) -> Path:
    """vocab.txt, filled up with unused tokens to `size`, and the configs of a tokenizer and a BERT that go with it."""
    characters = [*_CHARACTERS, *_OTHER]
    numbers = ["10", "12", "19", "20", "24", "50", "100", "200", "2020", "2021"]
    continued = [f"##{c}" for c in string.ascii_lowercase + string.digits + "\u03b1\u03b2"]
    words = [*_COMMON.split(), *_BIOMEDICAL.split(), *_PIECES.split()]
    tokens = list(dict.fromkeys([*SPECIAL, *characters, *continued, *numbers, *words]))
    tokens += [f"[unused{i}]" for i in range(size - len(tokens))]
    (folder / "vocab.txt").write_text("\n".join(tokens[:size]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    bert = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "hidden_act": "gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "type_vocab_size": 2,
        "vocab_size": size,
    }
    (folder / "config.json").write_text(json.dumps(bert))
    return folder
