"""The tables of a paper: a row per method, a column per pair, published numbers next to ours."""
