"""Code shared by the server and the client's commands: start and end of a program, config files, durable files."""
