"""Tables, figures and pages of stored cells."""
