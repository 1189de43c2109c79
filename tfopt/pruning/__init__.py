"""Making weights zero: masks as array maths."""
