"""What the server and the client's commands share: beginning and end of a program, config files, durable files."""
