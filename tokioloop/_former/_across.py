from tokioloop import run_on as run_on
