from tokioloop import install as install
from tokioloop import is_installed as is_installed
from tokioloop import uninstall as uninstall
