"""Who drives which run, where and when."""
