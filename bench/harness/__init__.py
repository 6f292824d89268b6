"""How to check, time, keep and show what it is given, of whatever op or model."""
