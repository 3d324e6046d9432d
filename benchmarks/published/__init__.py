"""Published numbers: the CSV files that tables print next to ours, and the script that builds them."""
