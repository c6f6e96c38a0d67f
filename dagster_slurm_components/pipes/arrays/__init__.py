"""Job arrays: many partitions, or items, by one submission."""
