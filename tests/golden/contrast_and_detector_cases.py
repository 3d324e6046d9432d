"""Our values of the golden cases of tekap_f, mgd and pkd."""

from tests.golden.cases import Adapter

ADAPTERS: dict[str, Adapter] = {}
