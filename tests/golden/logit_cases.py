"""Our values of the golden cases of mlkd, lskd, ctkd and tekap_l."""

from tests.golden.cases import Adapter

ADAPTERS: dict[str, Adapter] = {}
