"""Who calls, as somebody else says: issuers of tokens, and proxies that are trusted."""
