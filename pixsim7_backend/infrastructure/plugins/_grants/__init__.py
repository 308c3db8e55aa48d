"""What confined plugins ask for, and what the operator lets them do. Pure."""
