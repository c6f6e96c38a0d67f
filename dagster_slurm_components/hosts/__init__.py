"""The only I/O to a machine: this one in-process, or another one through the satellite over a connection."""
