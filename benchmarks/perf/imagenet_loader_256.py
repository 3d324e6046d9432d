"""As imagenet_loader, of images stored at 256 px."""

from benchmarks.perf.imagenet_loader import main

if __name__ == "__main__":
    main(256, 6.0, "imagenet_loader_256")
