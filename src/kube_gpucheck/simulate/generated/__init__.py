"""What a generated cluster is made of: its plan, its objects, and what can be broken in it."""
