"""The leaderboard: every record of a store, summed up over seeds, as one HTML file."""
