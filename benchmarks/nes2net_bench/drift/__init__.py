"""What another precision does to scores, EER, Cllr and decisions, on a protocol."""
