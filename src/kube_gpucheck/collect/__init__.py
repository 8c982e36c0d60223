"""Gathers evidence from outside: API servers, and later hosts. The only room that does I/O; it never judges."""
