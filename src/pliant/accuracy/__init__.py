"""How accurate is an architecture? Calibration, evaluation, estimators, and how well they rank."""
