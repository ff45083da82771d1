"""From a client's socket to requests and back: login, sessions, a user's share."""
