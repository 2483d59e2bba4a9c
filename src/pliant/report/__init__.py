"""What a run has to show, as one HTML page that works offline."""
