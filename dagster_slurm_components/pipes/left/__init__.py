"""Jobs that their steps leave, and whose results the sensor reports."""
