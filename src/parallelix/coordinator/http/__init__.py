"""The requester's and the public HTTP surface: native calls, the OpenAI shapes, and what anyone may read."""
