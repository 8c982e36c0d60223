"""Renders a run: terminal, JSON, JUnit. Knows results and nothing else, and decides nothing."""
