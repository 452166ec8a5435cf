from tokioloop import run as run
