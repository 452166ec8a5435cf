"""Where public names stood before: pickles made then name these modules, which are found here by the package's ``__path__``."""
