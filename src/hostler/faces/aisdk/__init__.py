"""The AI SDK's UI message stream: what `useChat` speaks (`ai` 7, `@ai-sdk/react` 4)."""
