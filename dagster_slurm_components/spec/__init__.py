"""The vocabulary: what users write, as models that know where it was written."""
