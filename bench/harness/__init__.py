"""The means to check, time, keep and show any op or model that it is given."""
