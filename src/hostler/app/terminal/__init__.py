"""What the commands for people show and ask, on terminals and in pipes."""
