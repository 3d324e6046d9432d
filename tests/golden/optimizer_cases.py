"""Our values of the golden cases of the optimiser dot."""

from tests.golden.cases import Adapter

ADAPTERS: dict[str, Adapter] = {}
