from watch_fixture import world  # noqa: F401
