"""Turns archives of other tools into bundles. Judges nothing and asks no cluster."""
