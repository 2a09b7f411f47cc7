"""The verbs of the product: all that a face may call, each with the principal that acts."""
