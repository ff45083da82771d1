"""The client's side of the log: reading, writing and repairing it by a quorum of servers."""
