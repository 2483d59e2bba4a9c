"""Published weights as starts: where they are, and which tensor of theirs is which of ours."""
