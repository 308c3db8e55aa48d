"""What carries the features of the backend, and knows none of them."""
