"""What methods are made of: losses, advantages, experience, row transforms."""
