"""How accurate is an architecture? Training, supernets, calibration, predictors."""
