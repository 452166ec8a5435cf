"""How a program comes to use `TokioLoop`: by a function that runs it, by a policy, by replacing what asyncio does. Uses `loop` and what is below it."""
