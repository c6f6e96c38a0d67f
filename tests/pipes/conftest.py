from runs_fixture import dead, memory_instance  # noqa: F401
