"""The unit files and configuration snippets, as package data: `importlib.resources.files("ringmount.systemd")`."""
