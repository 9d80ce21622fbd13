"""What the addresses take and give, as pydantic models: the OpenAPI schema is made of them."""

from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Why a request has no answer: one line, which says what was expected."""

    detail: str


def _without_null(schema: dict[str, Any]) -> None:
    """A form has no null, which the schema would promise for fields that may be left out."""
    for field in schema["properties"].values():
        kinds = [kind for kind in field.pop("anyOf", ()) if kind != {"type": "null"}]
        for kind in kinds:
            field.update(kind)


class _Form(BaseModel):
    """A form without fields that nobody reads: a misspelt one is refused, not passed over."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_null)


class ClassifyForm(_Form):
    """Images and the labels to choose between."""

    images: Annotated[list[UploadFile], Field(min_length=1, description="image files: JPEG, PNG, TIFF, WebP, GIF, BMP, DICOM")]
    labels: Annotated[list[str], Field(min_length=1, description="two or more names to choose between; one with multi_label")]
    template: Annotated[str | None, Field(description="a sentence with {} where the label goes")] = None
    multi_label: Annotated[bool, Field(description="each label is a question of its own, 'edema' against 'no edema'")] = False
    top: Annotated[int | None, Field(ge=1, le=10_000, description="only the best labels of each image")] = None


class ClassifiedImage(BaseModel):
    """Probabilities of one image, the best label first; or why it has none."""

    image: str
    probabilities: dict[str, float] | None = None
    error: str | None = None


class Classified(BaseModel):
    """Images in the order in which they came. warnings: labels that the model does not see as they are written."""

    images: list[ClassifiedImage]
    warnings: list[str]


class EmbedForm(_Form):
    """Images, texts, or both."""

    images: Annotated[list[UploadFile], Field(description="image files, as of /classify")] = []
    texts: Annotated[list[str], Field(description="sentences")] = []


class EmbeddedImage(BaseModel):
    """The unit embedding of one image; or why it has none."""

    image: str
    embedding: list[float] | None = None
    error: str | None = None


class EmbeddedText(BaseModel):
    """The unit embedding of one text."""

    text: str
    embedding: list[float]


class Embedded(BaseModel):
    """Images and texts in the order in which they came. model: 32 hexadecimal digits, other for other weights."""

    model: str
    images: list[EmbeddedImage]
    texts: list[EmbeddedText]
    warnings: list[str]


class SearchForm(_Form):
    """A text or an image, and what the hits must be."""

    text: Annotated[str | None, Field(description="what to look for in words")] = None
    image: Annotated[UploadFile | None, Field(description="what to look for the like of; in place of a text")] = None
    filters: Annotated[list[str], Field(description="'license=CC BY', 'year>=2015' ...; all must hold")] = []
    top: Annotated[int, Field(ge=1, le=100, description="hits")] = 10


class FoundImage(BaseModel):
    """An image of the index. score: cosine with what was asked for. columns: all that is known besides."""

    rank: int
    score: float
    id: str | None = None
    image: str | None = None
    caption: str | None = None
    article: str | None = None
    license: str | None = None
    citation: str | None = None
    columns: dict[str, str]


class Found(BaseModel):
    """Hits, the best first. kind: "text" or "image". searched: images that the filters left."""

    query: str
    kind: str
    searched: int
    hits: list[FoundImage]
    warnings: list[str] = []


class HeatmapForm(_Form):
    """An image and a phrase."""

    image: Annotated[UploadFile, Field(description="an image file, as of /classify")]
    phrase: Annotated[str, Field(min_length=1, description="what the map is of, such as 'pleural effusion'")]
    against: Annotated[str | None, Field(description="another finding to compare with; by default a common one")] = None
    format: Annotated[Literal["json", "png"], Field(description="json: the numbers; png: the picture of all maps")] = "json"


class MapsOfMethod(BaseModel):
    """The maps of one method. maps: of each text, rows of patches, the top one first.

    word_dependence: from 0 (any words get this map) to 1. rewording: the same between a phrase and its own rewordings.
    """

    word_dependence: dict[str, float]
    rewording: dict[str, float]
    maps: dict[str, list[list[float]]]


class Maps(BaseModel):
    """Which regions of an image answer a phrase, beside the maps of another finding and of nonsense.

    box: left, top, right, bottom of what the model sees, in pixels of the image. warnings: maps that say nothing.
    """

    image: str
    image_size: list[int]
    box: list[float]
    phrases: list[str]
    findings: list[str]
    nonsense: list[str]
    cosines: dict[str, float]
    methods: dict[str, MapsOfMethod]
    warnings: list[str]


class Health(BaseModel):
    """status: "ok", or "stopping" while the last requests are answered."""

    status: str
