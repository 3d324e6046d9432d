"""What the process has imported that forks the jobs of the integration tests: only that process imports this module."""

import importlib

from slurm.imports import without_garbage_collection

MODULES = ["harness.training.job", "harness.models.detection.build", "deepspeed"]
# Modules whose functions run in these processes: each would import them for a second.
MODULES += ["tests.support.ranks", "tests.integration.test_compaction", "tests.integration.test_records"]

with without_garbage_collection():
    for name in MODULES:
        importlib.import_module(name)
