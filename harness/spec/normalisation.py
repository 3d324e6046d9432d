"""Normalisation of images: the mean and standard deviation of each channel that weights expect. Imports no torch."""

from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harness.errors import shorten
from harness.spec.recipe import Closed, Finite

LEAST_STD = 1e-6  # less would leave float32; images of pixels 0 to 255 have 1/255


class Normalisation(NamedTuple):
    """Mean and std per channel, of pixel values in [0, 1]; a network sees (pixel - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def text(self) -> str:
        """Return it for people; one number where all channels have the same."""
        texts = [[f"{value:.4g}" for value in values] for values in self]
        mean, std = (", ".join(text if len(set(text)) > 1 else text[:1]) for text in texts)
        return f"mean {mean} and std {std}"

    def of_channels(self, count: int, dataset: str) -> "Normalisation":
        """Return it with ``count`` numbers each; one number stands for all channels.

        Raises:
            ValueError: there are neither so many numbers nor one.
        """
        for key, values in zip(self._fields, self, strict=True):
            if len(values) not in (1, count):
                each = f"a number for each of the {count} channels of {dataset}, or one" if count > 1 else "one number"
                raise ValueError(f"{key}: expected {each}, found {len(values)} numbers")
        return Normalisation(*(values * count if len(values) == 1 else values for values in self))


def _as_list(value: Any) -> Any:
    values = value if isinstance(value, list | tuple) else [value]
    if wrong := [v for v in values if isinstance(v, bool) or not isinstance(v, int | float)]:
        raise ValueError(f"expected a number or a list of numbers, one per channel; found {shorten(wrong[0])}")
    return values


def _check_scale(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values:
        raise ValueError("expected a number or a list of numbers, one per channel; found none")
    if (largest := max(values)) > 1:
        raise ValueError(
            f"expected numbers for pixels from 0 to 1, found {largest:g}: divide mean and std by 255 if they are for "
            "pixels from 0 to 255"
        )
    return values


_PerChannel = (BeforeValidator(_as_list), AfterValidator(_check_scale))


class StatedNormalisation(Closed):
    """The normalisation that a sweep file may state for a teacher's weights."""

    mean: Annotated[tuple[Annotated[Finite, Field(ge=0)], ...], *_PerChannel] | None = Field(
        None,
        description="mean of the pixels, on a scale from 0 to 1, that the images of the weights' own training were "
        "normalised by: one number per channel, or one for all; the dataset's when not stated, or for a `name` the "
        "library's",
    )
    std: Annotated[tuple[Annotated[Finite, Field(ge=LEAST_STD)], ...], *_PerChannel] | None = Field(
        None, description="the standard deviation that goes with `mean`"
    )

    @model_validator(mode="after")
    def _both(self) -> "StatedNormalisation":
        if (self.mean is None) != (self.std is None):
            stated, missing = ("mean", "std") if self.std is None else ("std", "mean")
            raise ValueError(f"{stated} is stated without {missing}: state both")
        return self

    @property
    def stated_normalisation(self) -> Normalisation | None:
        """Return mean and std; None where they are not stated."""
        return None if self.mean is None or self.std is None else Normalisation(self.mean, self.std)
