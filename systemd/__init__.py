"""Unit files and configuration snippets, read by `importlib.resources.files("ringmount.systemd")`."""
