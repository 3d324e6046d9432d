"""Our values of the golden cases of rld, ttm, wttm, nkd and ofa."""

from tests.golden.cases import Adapter

ADAPTERS: dict[str, Adapter] = {}
