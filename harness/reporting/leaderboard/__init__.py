"""The leaderboard: every record of a store, aggregated over seeds, as one HTML file."""
