"""What all faces over HTTP share: who calls, what they send, how they are answered, and streams."""
