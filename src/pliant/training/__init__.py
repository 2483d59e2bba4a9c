"""The one training loop, and the strategies that say which networks a step trains."""
