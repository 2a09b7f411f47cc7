"""The commands of `hostler`, one module each, loaded when they are called."""
