"""Speed of the harness, as ratios: `make bench [NAME=...]`."""
