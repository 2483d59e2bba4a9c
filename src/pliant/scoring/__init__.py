"""Networks that nobody trains: their scores, how well those rank them, and a search by one of them."""
