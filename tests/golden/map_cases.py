"""Our values of the golden cases of catkd, srrl and ickd."""

from tests.golden.cases import Adapter

ADAPTERS: dict[str, Adapter] = {}
