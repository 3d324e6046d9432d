"""Bench of loading ImageNet images that were prepared at 256 px; see imagenet_loader."""

from benchmarks.perf.imagenet_loader import main

if __name__ == "__main__":
    main(256, 7.5, "imagenet_loader_256")
