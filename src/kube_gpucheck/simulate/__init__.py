"""Makes bundles: scenarios, recipes that build one bundle from another."""
