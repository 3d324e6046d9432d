"""Our values of the golden cases of wkd_l and wkd_f."""

from tests.golden.cases import Adapter

ADAPTERS: dict[str, Adapter] = {}
