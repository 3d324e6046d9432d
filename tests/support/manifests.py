"""A valid manifest of a prepared dataset, to be changed by tests."""

from typing import Any

VALUE: dict[str, Any] = {
    "format": 1,
    "dataset": "imagefolder",
    "version": "0123456789abcdef",
    "settings": {"max_side": 400, "quality": 90},
    "source": "fedcba9876543210",
    "classes": ["ant", "bee"],
    "train": None,
    "test": {"file": "val.beton", "images": 2, "per_class_min": 1, "bytes": 3, "counts": {"kept": 2}},
    "unreadable": [{"file": "val/ant/1.JPEG", "why": "empty file"}],
    "made_with": {"pillow": "13.0.0"},
}
