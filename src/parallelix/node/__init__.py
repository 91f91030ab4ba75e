"""The operator's side: command line, daemon, keys, hardware probe, runtimes, background service."""
