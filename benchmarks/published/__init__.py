"""Published numbers: the CSV files that tables print beside ours, and the script that builds them."""
