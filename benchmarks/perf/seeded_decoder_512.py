"""Bench of reproducible crops of images that are stored at 512 px, see ``seeded_decoder``."""

from benchmarks.perf.seeded_decoder import main

if __name__ == "__main__":
    main(512, 2.5, "seeded_decoder_512")
