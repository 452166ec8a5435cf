from tokioloop import LoopStats as LoopStats
from tokioloop import PoolServer as PoolServer
from tokioloop import ServerStats as ServerStats
