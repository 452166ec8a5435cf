"""Ways for a program to use `TokioLoop`: a function that runs it, a policy, replacing asyncio's functions. Uses `loop` and the folders below it."""
