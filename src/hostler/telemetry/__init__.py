"""What is told of a running server: lines, figures and traces, read off the log."""
