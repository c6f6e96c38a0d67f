"""The agent: one small process per user and machine that owns the one connection to each host."""
