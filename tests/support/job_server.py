"""The process that forks the jobs of the integration tests imports this module, and so has what they need."""

import importlib

import pyarrow

from slurm.imports import without_garbage_collection

# DeepSpeed imports an optimiser's module, and with it torch's compiler, when it starts with ZeRO.
DEEPSPEED = ["deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer"]
MODULES = ["harness.training.job", "harness.models.detection.build", *DEEPSPEED]
# Modules whose functions run in these processes: each would import them for a second.
MODULES += ["tests.support.ranks", "tests.integration.test_compaction", "tests.integration.test_records"]

with without_garbage_collection():
    for name in MODULES:
        importlib.import_module(name)
    pyarrow.scalar(0)  # imports pandas, as the first record does
