"""What scores completions after training, and what gives feedback in it."""
