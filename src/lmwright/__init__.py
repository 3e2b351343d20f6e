"""lmwright: language models built on your own text, planned, trained, evaluated and exported."""
