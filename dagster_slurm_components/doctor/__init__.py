"""What is wrong with a host, before a job finds out; and what a cluster says of itself."""
