"""What the API answers, as its documentation shows it."""

from typing import Any

from pydantic import BaseModel, Field

__all__ = [
    "About", "Attention", "Failure", "Found", "Group", "Groups", "Health", "Heat", "Page", "Picture", "Sent", "Term",
    "picture_of",
]  # fmt: skip


class Failure(BaseModel):
    error: str = Field(description="One sentence: what is wrong, and what to do.")


class Health(BaseModel):
    status: str = Field(description="ok, or what is wrong.")


class About(BaseModel):
    """The index, and what can be done with it."""

    name: str
    pictures: int
    version: str = Field(description="Another one once the index has changed.")
    model: str
    words: bool = Field(description="Whether the model reads words.")
    sorts: list[str]
    columns: dict[str, str] = Field(description="What conditions may be about, and of which kind it is.")
    mirada: str


class Picture(BaseModel):
    id: int
    name: str
    path: str
    size: int = Field(description="Bytes.")
    width: int | None = None
    height: int | None = None
    date: str | None = Field(None, description="When it was taken, or else modified; local time.")
    taken: str | None = None
    modified: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    camera: str | None = None
    score: float | None = Field(None, description="Cosine with what was asked for.")
    match: float | None = Field(None, description="How sure it is that this is a hit; from 0.5 on it is one.")


class Page(BaseModel):
    total: int
    version: str
    pictures: list[Picture]


class Term(BaseModel):
    words: str
    weight: float


class Found(BaseModel):
    """Best first; none if nothing matches."""

    version: str
    terms: list[Term] = Field(description="The words of the query, as they were understood.")
    pictures: list[Picture]


class Sent(BaseModel):
    upload: str = Field(description="Goes into plus= or minus= of a search.")
    width: int
    height: int


class Group(BaseModel):
    pictures: list[Picture]


class Groups(BaseModel):
    total: int
    version: str
    groups: list[Group]


Box = tuple[float, float, float, float]


class Heat(BaseModel):
    box: Box = Field(description="What the model saw: left, top, right, bottom, as shares of the picture's sides.")
    values: list[list[float]] = Field(description="Cosine of each patch with the query, row by row.")


class Attention(BaseModel):
    box: Box
    layers: int = Field(description="0 for a model without attention.")
    layer: int
    from_: list[list[list[list[int]]]] = Field(
        alias="from",
        description="from[row][column]: millionths of its attention that this block of patches gives to each; at most "
        "16 blocks a side.",
    )


def picture_of(row: dict[str, Any], score: float | None = None, match: float | None = None) -> Picture:
    """A row as the API shows it."""
    values = {key: value.isoformat() if hasattr(value, "isoformat") else value for key, value in row.items()}
    name = str(row["path"]).replace("\\", "/").rpartition("/")[2]
    return Picture(name=name, score=score, match=match, **values)
