"""A campaign against mogul: what an adversary, a careless user or a failing machine may do."""
