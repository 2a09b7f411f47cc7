"""OpenAI's Chat Completions, and the list of models: for clients that speak them already."""
