"""A parameter server's conversation: what workers and servers tell each other, and the rule of who waits for whom."""
