"""The supervisor: mounts, negotiates, watches workers, and the command line."""
