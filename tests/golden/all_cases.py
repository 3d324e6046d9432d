"""The adapters of all golden cases, and the effects of readings of them, joined."""

from tests.golden import (
    contrast_and_detector_cases,
    earlier_cases,
    logit_cases,
    map_cases,
    optimizer_cases,
    refined_logit_cases,
    transport_cases,
)

_LATER = (
    contrast_and_detector_cases, logit_cases, map_cases, optimizer_cases, refined_logit_cases, transport_cases
)  # fmt: skip
# A case's `method` -> a function from the case and its arrays to our values of everything it lists.
ADAPTERS = {**earlier_cases.ADAPTERS, **{name: adapt for m in _LATER for name, adapt in m.ADAPTERS.items()}}
# A row of docs/methods/code-and-paper.md -> a function to the loss as the code has it and by the other reading.
EFFECTS = {key: effect for module in _LATER for key, effect in module.EFFECTS.items()}
