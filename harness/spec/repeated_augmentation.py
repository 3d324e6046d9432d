"""Repeated augmentation: how many images one pass over a training set shows. Imports no torch."""

ROUNDED_TO = 256  # images, as in DeiT's sampler


def images_per_pass(train_images: int, repeats: int) -> int:
    """Return how many images, copies included, a pass shows.

    With ``repeats`` it shows as many as the training set has, rounded down to a multiple of 256 where there are so
    many: copies of the first ones in the pass's order. So does DeiT (repository facebookresearch/deit, samplers.py:
    RASampler; timm's RepeatAugSampler is the same).
    """
    if repeats == 1 or train_images < ROUNDED_TO:
        return train_images
    return train_images // ROUNDED_TO * ROUNDED_TO
