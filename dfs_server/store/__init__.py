"""A namespace on one server: the acceptor, the log and the map, in one SQLite file."""
