"""Assets that run wherever the profile says."""
