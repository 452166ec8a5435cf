from tokioloop import Worker as Worker
from tokioloop import current_worker as current_worker
