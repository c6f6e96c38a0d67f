"""Data that scripts read: how inputs come to a host, and how they are kept there. Knows no Dagster."""
