"""OpenAI's Responses: stateful answers, in the form that OpenAI's clients read."""
