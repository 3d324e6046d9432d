"""CUDA graphs, streams and memory, behind small interfaces that do nothing on a CPU."""
