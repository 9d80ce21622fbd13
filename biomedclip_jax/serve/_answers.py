"""What the addresses take and give, as pydantic models: the OpenAPI schema is made of them."""

from typing import Annotated

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Why a request has no answer: one line, which says what was expected."""

    detail: str


class _Form(BaseModel):
    """A form without fields that nobody reads: a misspelt one is refused, not passed over."""

    model_config = ConfigDict(extra="forbid")


class ClassifyForm(_Form):
    """Images and the labels to choose between."""

    images: Annotated[list[UploadFile], Field(description="image files: JPEG, PNG, TIFF, WebP, GIF, BMP, DICOM")]
    labels: Annotated[list[str], Field(description="two or more names to choose between; one with multi_label")]
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


class Health(BaseModel):
    """status: "ok", or "stopping" while the last requests are answered."""

    status: str
