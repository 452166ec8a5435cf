from tokioloop import format_call_graph as format_call_graph
from tokioloop import print_tasks as print_tasks
