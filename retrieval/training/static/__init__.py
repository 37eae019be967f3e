"""Making and training the token table of a static model with our own loop."""
