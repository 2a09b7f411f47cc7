"""What is kept beside the logs: rows, and the ports of those who keep them."""
