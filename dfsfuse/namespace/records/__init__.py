"""The records of the map and their keys, as values and as bytes. Pure."""
