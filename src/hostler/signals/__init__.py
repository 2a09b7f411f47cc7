"""Wake-ups and text in flight: what may be lost, because the log is not."""
