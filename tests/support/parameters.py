"""Parameters and gradients for optimisers, some of whose steps reach only some of them."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

SHAPES = ((3, 2, 3, 3), (7,), ())
STEPS = 5
# Whether the loss of a step reaches a parameter.
steps_of_parameters = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=STEPS, max_size=STEPS)


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def gradients() -> list[list[Tensor]]:
    torch.manual_seed(1)
    return [[torch.randn(shape) for shape in SHAPES] for _ in range(STEPS)]


def put(ours: list[nn.Parameter], reached: list[bool], values: list[Tensor]) -> None:
    for p, has_gradient, value in zip(ours, reached, values, strict=True):
        p.grad = value.clone() if has_gradient else None
