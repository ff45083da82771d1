"""The client's side of the log: reads, writes and repairs it through a quorum of servers."""
