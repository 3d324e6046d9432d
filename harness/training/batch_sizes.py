"""The sizes of the batches that a run's method sees, down to the last and smallest of a pass over the images."""

from dataclasses import dataclass

from harness.phrases import plural
from harness.spec.science import Science


@dataclass
class BatchSizes:
    """The sizes of a run's batches, or of the micro-batches and shards that its method sees one by one."""

    science: Science
    shards: int  # processes among which a batch is divided before a method sees it

    @property
    def largest(self) -> int:
        return max(self._parts(self.science.recipe.batch_size))

    @property
    def smallest(self) -> int:
        return min(self._parts(self.science.recipe.batch_size))

    @property
    def last(self) -> str:
        """Return where the smallest batch comes from."""
        recipe, images = self.science.recipe, self.science.images_per_pass
        parts = f", accumulate {recipe.accumulate}" if recipe.accumulate > 1 else ""
        parts += f", {plural(self.shards, 'process', 'processes')}" if self.shards > 1 else ""
        smallest = f"a batch of {plural(self.smallest, 'image')}"
        return f"{smallest}, as {images:,} images in batches of {recipe.batch_size}{parts} leave"

    @property
    def advice(self) -> str:
        """Return what avoids a small last batch."""
        size = self.science.recipe.batch_size
        if self.smallest > 1:
            return "choose another batch_size or train_subset"
        near = (size + sign * distance for distance in range(1, size + 1) for sign in (1, -1))
        other = next((n for n in near if n > 1 and min(self._parts(n)) > 1), None)
        return f"batch_size: {other} leaves none" if other else "choose another batch_size or train_subset"

    def _parts(self, batch_size: int) -> set[int]:
        recipe, images = self.science.recipe, self.science.images_per_pass
        sizes = {min(batch_size, images)}
        if recipe.epoch_steps is None or recipe.last_epoch * recipe.epoch_steps * batch_size >= images:
            sizes.add(images % batch_size or batch_size)
        shards = {max(1, size // self.shards) for size in sizes} | {-(-size // self.shards) for size in sizes}
        parts = [(size, min(recipe.accumulate, size)) for size in shards]
        return {size // number for size, number in parts} | {-(-size // number) for size, number in parts}
