from tokioloop import EventLoopPolicy as EventLoopPolicy
