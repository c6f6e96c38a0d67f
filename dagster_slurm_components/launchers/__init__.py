"""Pure planners: a launcher's spec in, one static shell file and its arguments out."""
