"""Where logs are kept: one module per storage, each a `core.store.Store`."""
