"""The process that forks the jobs of the integration tests imports this module, and so has what they need."""

import importlib

import pyarrow

from slurm.imports import without_garbage_collection

MODULES = ["harness.training.job", "harness.models.detection.build", "deepspeed"]
# Modules whose functions run in these processes: each would import them for a second.
MODULES += ["tests.support.ranks", "tests.integration.test_compaction", "tests.integration.test_records"]

with without_garbage_collection():
    for name in MODULES:
        importlib.import_module(name)
    pyarrow.scalar(0)  # imports pandas, as the first record does
