"""The former modules of public names: older pickles name these modules, which are found here by the package's ``__path__``."""
