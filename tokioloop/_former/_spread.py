from tokioloop import serve as serve
