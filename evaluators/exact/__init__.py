"""What is known exactly in worlds small enough to enumerate: the optimum, each method's own target, the distances."""
