"""A node as a process of its own: its log, its signals, its supervisor, its privileges."""
