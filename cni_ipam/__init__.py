"""The address plugin: hands out addresses from reservations on disk. Never imports pyroute2."""
