"""What is unlike the normal: four methods over one model's features. See docs/anomalies.md."""
